"""Every key that a configuration file may hold, and what becomes of it.

The names are those of the reference server, so that its operators can bring their files along. A key is

- *used*: it fills a setting;
- *understood*: what it asks for is what this server does by itself; asking for something else is refused;
- *harmless*: it is accepted and without effect, and the log says so;
- *refused*: it asks for what this version does not have, and doing without it in silence would be wrong.

`tiled_stream` is our own section: any setting by its own name. docs/reference/config.md lists the same keys; a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_type_hints

import msgspec

from ..wire.negotiate import ALIASES, BLUESKY_RUN, JSON_SEQ
from .settings import Settings

__all__ = ["KEYS", "OWN", "SECTIONS", "Key", "Unfit", "Use"]

Use = Literal["used", "understood", "harmless", "refused"]

#: The section of our own.
OWN = "tiled_stream"

_HINTS = get_type_hints(Settings)
_TEXTS = tuple[str, ...]
#: Exporters and routers of Bluesky's plugins that this server has built in.
_EXPORTERS = {(BLUESKY_RUN, JSON_SEQ): "bluesky_tiled_plugins.exporters:json_seq_exporter"}
_ROUTERS = ("bluesky_tiled_plugins.routers.validator:router",)
#: What the reference server calls its catalog.
_CATALOGS = ("catalog", "tiled.catalog:from_uri")

_NO_POLICIES = "there are no access policies in this version: who may read, reads everything."
_NO_TLS = "this server speaks plain HTTP; let a proxy in front of it do TLS."
_NO_CODE = "Python objects from outside are not loaded by this version; take the key out."


class Unfit(Exception):
    """A value of the right type that cannot be; `at` leads to the place inside the value, such as ``[1]``."""

    def __init__(self, why: str, *, at: str = "", code: int = 1) -> None:
        super().__init__(why)
        self.at = at
        self.code = code


def _as_it_is(value: Any) -> Any:
    return value


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key.

    path: where it stands, with dots; ``[]`` for any entry of a list
    kind: type of its value
    use: what becomes of it
    setting: the setting that it fills, if it is used
    take: turns the value into that of the setting; raises `Unfit`. Of a key that is understood: only checks
    why: the reason of a refusal, with the cure
    asks_nothing: values of a refused key that ask for nothing and are let pass
    """

    path: str
    kind: Any
    use: Use
    setting: str = ""
    take: Callable[[Any], Any] = _as_it_is
    why: str = ""
    asks_nothing: tuple[Any, ...] = ()


class _Provider(msgspec.Struct, forbid_unknown_fields=True):
    provider: str
    authenticator: str
    args: dict[str, Any] = {}


class _Identity(msgspec.Struct, forbid_unknown_fields=True):
    provider: str
    id: str


class _RootSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: str | None = None


class _Declared(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    spec: str
    validator: str | None = None


def _declared(value: tuple[_Declared, ...]) -> tuple[dict[str, Any], ...]:
    names = [entry.spec for entry in value]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise Unfit(f"the spec {name!r} is declared above already; keep one of the two.", at=f"[{i}].spec")
    return _plain(value)


def _root_specs(value: tuple[_RootSpec, ...]) -> tuple[dict[str, Any], ...]:
    return tuple({"name": spec.name, "version": spec.version} for spec in value)


def _api_key(value: str) -> str:
    if not (value.isascii() and value.isalnum()):
        raise Unfit("the key must consist of letters and digits only (and not be empty); clients understand no other.", code=3)
    return value


def _log_place(value: str) -> str:
    """A value that is wrong is not shown: it may be a Redis URI, with its password, that lost its scheme."""
    if value in ("auto", "local", "memory", "memory://", "sentinel") or value.startswith(("redis://", "rediss://")):
        return value
    raise Unfit("this must be a redis:// or rediss:// URI, or 'memory' (in our own section also 'auto' or 'local').")


def _sentinels(value: tuple[str | tuple[str, int], ...]) -> tuple[str, ...]:
    """As ``host:port``. A wrong one is not shown: it may be a URI with a password."""
    written = []
    for i, entry in enumerate(value):
        host, _, port = entry.rpartition(":") if isinstance(entry, str) else (entry[0], ":", str(entry[1]))
        if not host or "@" in host or "/" in host or not port.isdecimal():
            raise Unfit("a Sentinel is written as host:port.", at=f"[{i}]")
        written.append(f"{host}:{port}")
    return tuple(written)


def _root_path(value: str) -> str:
    """As the reference server reads it: `tiled`, `/tiled` and `/tiled/` are the same."""
    inner = value.strip("/")
    return f"/{inner}" if inner else ""


def _exporters(value: Mapping[str, Mapping[str, str]]) -> None:
    for family, exporters in value.items():
        for media_type, exporter in exporters.items():
            if _EXPORTERS.get((family, media_type)) != exporter:
                raise Unfit(
                    f"only what is built in can be named here ({', '.join(_EXPORTERS.values())} for {BLUESKY_RUN}); "
                    f"other exporters are not loaded by this version; take it out.",
                    at=f".{family}.{media_type}",
                )


def _extensions(value: Mapping[str, str]) -> None:
    for extension, media_type in value.items():
        known = sorted({name for family in ALIASES.values() for name in family.get(media_type, ())})
        if extension.lstrip(".") not in known:
            names = f"its extensions are {', '.join(known)}" if known else "this server has no such format"
            raise Unfit(f"no format is called so here: {names}; take it out.", at=f".{extension}")


def _routers(value: tuple[str, ...]) -> None:
    for i, router in enumerate(value):
        if router not in _ROUTERS:
            raise Unfit(f"only {', '.join(_ROUTERS)} is built in. {_NO_CODE}", at=f"[{i}]")


def _tree(value: str) -> None:
    if value not in _CATALOGS:
        raise Unfit(f"this version serves a catalog and no other tree: write 'catalog'. {_NO_CODE}")


def _plain(entries: tuple[msgspec.Struct, ...]) -> tuple[dict[str, Any], ...]:
    return tuple(msgspec.to_builtins(entry) for entry in entries)


#: Settings whose values need more than a check of their type, wherever they are given.
_TAKES: Mapping[str, tuple[Callable[[Any], Any], Any]] = {
    "api_key": (_api_key, str),
    "cache": (_log_place, str),
    "cache_sentinels": (_sentinels, tuple[str | tuple[str, int], ...]),
    "root_path": (_root_path, str),
    "root_specs": (_root_specs, tuple[_RootSpec, ...]),
    "providers": (_plain, tuple[_Provider, ...]),
    "admins": (_plain, tuple[_Identity, ...]),
    "specs": (_declared, tuple[_Declared, ...]),
}


def _used(path: str, setting: str) -> Key:
    take, kind = _TAKES.get(setting, (_as_it_is, _HINTS[setting]))
    return Key(path=path, kind=kind, use="used", setting=setting, take=take)


def _understood(path: str, kind: Any, check: Callable[[Any], None]) -> Key:
    return Key(path=path, kind=kind, use="understood", take=check)


def _harmless(path: str, kind: Any) -> Key:
    return Key(path=path, kind=kind, use="harmless")


def _refused(path: str, kind: Any, why: str, *asks_nothing: Any) -> Key:
    return Key(path=path, kind=kind, use="refused", why=why, asks_nothing=asks_nothing)


_CATALOG = (
    _used("catalog.uri", "catalog"),
    _used("catalog.metadata", "root_metadata"),
    _used("catalog.specs", "root_specs"),
    _used("catalog.writable_storage", "write"),
    _used("catalog.readable_storage", "read"),
    _used("catalog.init_if_not_exists", "init"),
    _used("catalog.adapters_by_mimetype", "adapters_by_mimetype"),
    _refused("catalog.top_level_access_tags", _TEXTS, f"access tags restrict nobody here: {_NO_POLICIES}", ()),
    _understood("catalog.mount_node", str | _TEXTS, _as_it_is),
    _used("catalog.catalog_pool_size", "catalog_pool_size"),
    _used("catalog.storage_pool_size", "storage_pool_size"),
    _harmless("catalog.catalog_max_overflow", int),
    _harmless("catalog.storage_max_overflow", int),
    _understood("trees[].tree", str, _tree),
    _understood("trees[].path", str, _as_it_is),
    _used("create_mount_nodes_if_not_exist", "create_mount_nodes_if_not_exist"),
    _used("catalog_pool_size", "catalog_pool_size"),
    _used("storage_pool_size", "storage_pool_size"),
    _harmless("catalog_max_overflow", int),
    _harmless("storage_max_overflow", int),
)
_ACCESS = (
    _used("authentication.single_user_api_key", "api_key"),
    _used("authentication.allow_anonymous_access", "public"),
    _used("authentication.providers", "providers"),
    _used("authentication.tiled_admins", "admins"),
    _used("authentication.secret_keys", "secret_keys"),
    _used("authentication.access_token_max_age", "access_token_seconds"),
    _used("authentication.refresh_token_max_age", "refresh_token_seconds"),
    _used("authentication.session_max_age", "session_seconds"),
    _used("database.uri", "accounts"),
    _used("database.init_if_not_exists", "accounts_init"),
    _harmless("database.pool_pre_ping", bool),
    _harmless("database.pool_size", int),
    _harmless("database.max_overflow", int),
    _refused("access_control", Any, _NO_POLICIES),
    _used("allow_origins", "allow_origins"),
)
_EDGE = (
    _understood("media_types", dict[str, dict[str, str]], _exporters),
    _understood("file_extensions", dict[str, str], _extensions),
    _used("specs", "specs"),
    _used("reject_undeclared_specs", "reject_undeclared_specs"),
    _used("expose_raw_assets", "expose_raw_assets"),
    _understood("routers", _TEXTS, _routers),
    _used("response_bytesize_limit", "response_bytesize_limit"),
    _used("exact_count_limit", "exact_count_limit"),
    _used("metrics.prometheus", "metrics"),
    _used("webhooks.secret_keys", "webhook_secret_keys"),
    _used("webhooks.blocked_networks", "webhook_blocked_networks"),
    _used("webhooks.allow_delivery_hosts", "webhook_allow_delivery_hosts"),
    _used("webhooks.allow_http", "webhook_allow_http"),
    _used("webhooks.allow_private_addresses", "webhook_allow_private_addresses"),
)
_STREAMING = (
    _used("streaming_cache.uri", "cache"),
    _used("streaming_cache.sentinels", "cache_sentinels"),
    _used("streaming_cache.service_name", "cache_service_name"),
    _used("streaming_cache.password", "cache_password"),
    _used("streaming_cache.ssl", "cache_ssl"),
    _used("streaming_cache.data_ttl", "cache_data_ttl"),
    _harmless("streaming_cache.seq_ttl", float),
    _harmless("streaming_cache.socket_timeout", float),
    _harmless("streaming_cache.socket_connect_timeout", float),
    _harmless("streaming_cache.health_check_interval", float),
)
#: Where this server has no uvicorn in it, what only tunes uvicorn is harmless; what promises something to others is not.
_UVICORN = (
    _used("uvicorn.host", "host"),
    _used("uvicorn.port", "port"),
    _used("uvicorn.root_path", "root_path"),
    _used("uvicorn.log_level", "log_level"),
    _used("uvicorn.access_log", "access_log"),
    _refused("uvicorn.workers", int, "a server is one process; start it several times, each with --scalable.", 1),
    _refused("uvicorn.uds", str, "this server listens to a host and a port; a proxy can listen to a socket file."),
    _refused("uvicorn.fd", int, "this server opens its own socket; use plain hypercorn for one that is handed over."),
    _refused("uvicorn.headers", Any, "headers for every answer are not in this version; let a proxy add them.", []),
    *(_refused(f"uvicorn.ssl_{name}", Any, _NO_TLS) for name in ("keyfile", "certfile", "keyfile_password", "ca_certs")),
    *(_refused(f"uvicorn.ssl_{name}", Any, _NO_TLS) for name in ("version", "cert_reqs", "ciphers")),
    *(_harmless(f"uvicorn.{name}", Any) for name in ("log_config", "forwarded_allow_ips", "use_colors", "http2", "reload")),
    *(_harmless(f"uvicorn.{name}", Any) for name in ("reload_dirs", "reload_includes", "reload_excludes", "reload_delay")),
    *(_harmless(f"uvicorn.{name}", bool) for name in ("proxy_headers", "server_header", "date_header")),
    *(_harmless(f"uvicorn.{name}", str) for name in ("loop", "http", "ws", "lifespan", "interface")),
    *(_harmless(f"uvicorn.ws_{name}", float) for name in ("max_size", "max_queue", "ping_interval", "ping_timeout")),
    _harmless("uvicorn.ws_per_message_deflate", bool),
    *(_harmless(f"uvicorn.limit_{name}", int) for name in ("concurrency", "max_requests", "max_requests_jitter")),
    *(_harmless(f"uvicorn.timeout_{name}", float) for name in ("keep_alive", "graceful_shutdown", "worker_healthcheck")),
    *(_harmless(f"uvicorn.{name}", int) for name in ("backlog", "h11_max_incomplete_event_size")),
)
_OWN = tuple(_used(f"{OWN}.{name}", name) for name in Settings.__struct_fields__)

#: All keys by their paths.
KEYS: Mapping[str, Key] = {key.path: key for key in (*_CATALOG, *_ACCESS, *_EDGE, *_STREAMING, *_UVICORN, *_OWN)}
#: What holds keys: a mapping or, with ``[]``, each entry of a list; and the section whose keys it holds.
SECTIONS: Mapping[str, str] = {path.rpartition(".")[0]: path.rpartition(".")[0] for path in KEYS} | {"trees[].args": "catalog"}
