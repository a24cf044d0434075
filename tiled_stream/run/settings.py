"""Everything that can be set, in one frozen value. Only this file reads the environment.

Names of fields carry their units. `from_env` reads ``TILED_STREAM_<FIELD>``; a few names of the reference server are understood
too. A wrong value is refused with the name of the setting and the cure.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from ..domain.nodes import Spec
from ..domain.uris import redacted
from ..nodes.mounts import Mount, Mounts
from ..webhooks.egress import host_rules, network_rules

__all__ = ["ALIASES", "ENVIRONMENT", "POSTGRES", "Settings", "SettingsError", "Tree", "from_env", "mounts_of"]

ENVIRONMENT = "TILED_STREAM_"
#: What URIs of PostgreSQL begin with.
POSTGRES = ("postgresql://", "postgres://", "postgresql+asyncpg://")

#: Names of the reference server that mean the same here.
ALIASES = {
    "TILED_SINGLE_USER_API_KEY": "api_key",
    "TILED_CATALOG_URI": "catalog",
    "TILED_ALLOW_ANONYMOUS_ACCESS": "public",
    "TILED_RESPONSE_BYTESIZE_LIMIT": "response_bytesize_limit",
    "TILED_ALLOW_ORIGINS": "allow_origins",
    "TILED_SECRET_KEYS": "secret_keys",
    "TILED_ACCESS_TOKEN_MAX_AGE": "access_token_seconds",
    "TILED_REFRESH_TOKEN_MAX_AGE": "refresh_token_seconds",
    "TILED_SESSION_MAX_AGE": "session_seconds",
    "TILED_DATABASE_URI": "accounts",
    "TILED_DATABASE_INIT_IF_NOT_EXISTS": "accounts_init",
    "TILED_CATALOG_POOL_SIZE": "catalog_pool_size",
    "TILED_STORAGE_POOL_SIZE": "storage_pool_size",
    "TILED_EXPOSE_RAW_ASSETS": "expose_raw_assets",
    "TILED_REJECT_UNDECLARED_SPECS": "reject_undeclared_specs",
    "TILED_EXACT_COUNT_LIMIT": "exact_count_limit",
    "TILED_WEBHOOKS_SECRET_KEYS": "webhook_secret_keys",
    "TILED_WEBHOOKS_BLOCKED_NETWORKS": "webhook_blocked_networks",
    "TILED_WEBHOOKS_ALLOW_DELIVERY_HOSTS": "webhook_allow_delivery_hosts",
    "TILED_WEBHOOKS_ALLOW_HTTP": "webhook_allow_http",
    "TILED_WEBHOOKS_ALLOW_PRIVATE_ADDRESSES": "webhook_allow_private_addresses",
}
#: Times and sizes for which zero has a meaning, and those for which it would mean that nothing works.
_AT_LEAST_ZERO = (
    "cache_data_ttl",
    "cache_node_bytes",
    "cache_total_bytes",
    "cache_claim_bytes",
    "cache_keep_bytes",
    "persist_linger_seconds",
    "drain_timeout_seconds",
)
_ABOVE_ZERO = (
    "catalog_pool_size",
    "storage_pool_size",
    "barrier_timeout_seconds",
    "ready_backlog_seconds",
    "response_bytesize_limit",
    "request_bytesize_limit",
    "send_timeout_seconds",
)
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]+")
#: What the environment cannot say: structured values.
_NOT_IN_ENVIRONMENT = ("root_metadata", "root_specs", "adapters_by_mimetype", "providers", "admins", "specs", "mounts")
#: In the environment, entries of a list stand behind each other with this between them.
_BETWEEN = ","


class SettingsError(Exception):
    """A setting that cannot be; the sentence names it and says how to mend it. `code`: exit status of the command line."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Tree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of `mounts`. `specs` and `metadata` are for the container if it is made."""

    path: str = "/"
    node: str = "/"
    specs: tuple[Spec, ...] = ()
    metadata: dict[str, Any] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one server.

    catalog: file path, ``sqlite:///`` or ``postgresql://`` URI of the catalog; None only with `temp`
    temp: keep everything in a temporary directory that goes with the server, and the log in memory
    init: make the catalog if it is missing
    write: writable storage, in order: a directory for arrays; ``duckdb:///``, ``sqlite:///`` or ``postgresql://`` for tables
    read: readable storage: directories whose files may be registered
    catalog_pool_size: connections to a PostgreSQL catalog, at most
    storage_pool_size: connections to a PostgreSQL table storage, at most
    adapters_by_mimetype: readers of registered files, package.module:name by mimetype, before those that are known
    root_metadata: metadata of the root when the catalog is made
    root_specs: specs of the root when the catalog is made: objects with `name` and `version`
    mounts: containers of the catalog and the paths at which they are served: objects with `path`, `node` and, for one that is
        made, `specs` and `metadata`; empty: the root at /
    create_mount_nodes_if_not_exist: make the containers that are mounted if they are missing
    specs: specs that are declared: objects with `spec` and perhaps `validator`, package.module:function
    reject_undeclared_specs: refuse nodes with a spec that is not declared
    exact_count_limit: counts in answers are exact up to this, and this + 1 stands for more; -1: they are always exact
    api_key: the single user's key, letters and digits; empty: a random one
    public: anybody may read
    providers: who checks passwords: objects with `provider` (a name), `authenticator` (a class) and `args`; with them there are
        accounts, and no single key
    admins: identities with the role admin: objects with `provider` and `id`
    secret_keys: sign tokens; the first one signs, all of them are accepted; empty: a random one
    access_token_seconds: how long a token is good
    refresh_token_seconds: how long a token for new tokens is good
    session_seconds: how long a login lasts
    accounts: database of the accounts: ``sqlite:///PATH`` or ``postgresql://``; empty: in memory
    accounts_init: make the tables of the accounts if they are missing
    webhook_secret_keys: encrypt secrets of webhooks; the first one encrypts, all of them decrypt; empty: no webhooks
    webhook_blocked_networks: networks to which no webhook is delivered, besides those that are private
    webhook_allow_delivery_hosts: names of hosts to which webhooks are delivered whatever their addresses are
    webhook_allow_http: deliver webhooks to http:// URLs, too
    webhook_allow_private_addresses: deliver webhooks to private, loopback and link-local addresses, too
    host: address to listen on
    port: port to listen on; 0: any free one
    cache: where the log lives: "auto" (memory with `temp`, else a file beside the catalog), "memory", "local", or a
        ``redis://`` or ``rediss://`` URI
    cache_prefix: what the keys of this deployment begin with in Redis; deployments that share a Redis differ in it
    cache_sentinels: ``host:port`` of Redis Sentinels, instead of the URI; `cache` is then "sentinel"
    cache_service_name: the name under which the Sentinels know the Redis
    cache_password: password of the Redis behind the Sentinels
    cache_ssl: speak TLS with the Redis behind the Sentinels
    cache_strict: refuse to start on a Redis that may forget what was acknowledged (no AOF, or keys may be evicted)
    cache_data_ttl: seconds that persisted records stay in the log for late subscribers
    cache_node_bytes: bytes of persisted records that stay in the log, of one node
    cache_total_bytes: bytes of persisted records that stay in the log, of all nodes
    cache_claim_bytes: bodies of so many bytes or more rest beside the arrays while they are in the log in Redis; 0: none do
    cache_keep_bytes: bytes of records that a server keeps until they are persisted, to restore them in a Redis that lost them
    history: tell late subscribers from storage what the log has let go of; switched off it is announced as a gap
    log_sync: "normal": acknowledged writes survive a killed process; "full": a power cut too, at the price of an fsync
        (with Redis: of `WAITAOF`, which needs Redis 7.2 or Valkey)
    persist: persist what is written; switched off where other processes do (`tiled-stream persist`)
    persist_linger_seconds: how long changes may gather before they are persisted, unless a reader waits
    barrier_timeout_seconds: how long a reader waits for storage to catch up before it is told to come again
    drain_timeout_seconds: how long stopping may take to persist what is owed; what is left stays in the log
    ready_backlog_seconds: `/readyz` says no while the oldest unpersisted record is older than this
    response_bytesize_limit: bytes of data that one answer may hold
    request_bytesize_limit: bytes that one upload may hold
    send_timeout_seconds: a subscriber that reads nothing for so long is let go
    root_path: prefix under which a proxy serves this server, such as "/tiled"
    allow_origins: origins of web pages that may use this server (CORS)
    metrics: offer /api/v1/metrics
    expose_raw_assets: give out registered files as they are, and let assets be deleted
    access_log: a line for each request
    log_level: "debug", "info", "warning" or "error"
    log_format: "console" for people, "json" for machines
    scalable: refuse what only one process can use
    """

    catalog: str | None = None
    temp: bool = False
    init: bool = False
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    catalog_pool_size: int = 5
    storage_pool_size: int = 5
    adapters_by_mimetype: dict[str, str] = {}
    root_metadata: dict[str, Any] | None = None
    root_specs: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    create_mount_nodes_if_not_exist: bool = False
    specs: tuple[dict[str, Any], ...] = ()
    reject_undeclared_specs: bool = False
    exact_count_limit: int = -1
    api_key: str = ""
    public: bool = False
    providers: tuple[dict[str, Any], ...] = ()
    admins: tuple[dict[str, str], ...] = ()
    secret_keys: tuple[str, ...] = ()
    access_token_seconds: float = 15 * 60.0
    refresh_token_seconds: float = 7 * 24 * 3600.0
    session_seconds: float = 365 * 24 * 3600.0
    accounts: str = ""
    accounts_init: bool = False
    webhook_secret_keys: tuple[str, ...] = ()
    webhook_blocked_networks: tuple[str, ...] = ()
    webhook_allow_delivery_hosts: tuple[str, ...] = ()
    webhook_allow_http: bool = False
    webhook_allow_private_addresses: bool = False
    host: str = "127.0.0.1"
    port: int = 8000
    cache: str = "auto"
    cache_prefix: str = "tiled-stream"
    cache_sentinels: tuple[str, ...] = ()
    cache_service_name: str = ""
    cache_password: str = ""
    cache_ssl: bool = False
    cache_strict: bool = False
    cache_data_ttl: float = 3600.0
    cache_node_bytes: int = 64 << 20
    history: bool = True
    cache_total_bytes: int = 512 << 20
    cache_claim_bytes: int = 4 << 20
    cache_keep_bytes: int = 256 << 20
    log_sync: Literal["normal", "full"] = "normal"
    persist: bool = True
    persist_linger_seconds: float = 0.25
    barrier_timeout_seconds: float = 10.0
    drain_timeout_seconds: float = 20.0
    ready_backlog_seconds: float = 60.0
    response_bytesize_limit: int = 300_000_000
    request_bytesize_limit: int = 1 << 30
    send_timeout_seconds: float = 30.0
    root_path: str = ""
    allow_origins: tuple[str, ...] = ()
    metrics: bool = True
    expose_raw_assets: bool = True
    access_log: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    scalable: bool = False

    def __post_init__(self) -> None:
        if self.cache == "memory://":  # some write it as a URI
            msgspec.structs.force_setattr(self, "cache", "memory")
        if self.temp == (self.catalog is not None):
            raise SettingsError("Give a catalog (a file such as ./catalog.db), or --temp for one that is forgotten, not both.")
        if self.api_key and not (self.api_key.isascii() and self.api_key.isalnum()):
            raise SettingsError("The API key must consist of letters and digits only; clients understand no other.", code=3)
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise SettingsError("'root_path' begins with a slash and does not end with one, as in /tiled.")
        self._check_ranges()
        if self.exact_count_limit < -1:
            raise SettingsError("'exact_count_limit' is a number of nodes, or -1 for counts that are always exact.")
        mounts_of(self.mounts)
        self._check_cache()
        self._check_webhooks()
        if self.providers and self.api_key:
            raise SettingsError("With 'providers' there are accounts, each with keys of its own: take 'api_key' out.")
        if self.scalable:
            self._check_scalable()

    def __repr__(self) -> str:
        """Without the secrets."""
        shown: dict[str, Any] = {f: getattr(self, f) for f in self.__struct_fields__}
        shown |= {"api_key": "***", "cache_password": "***", "cache": redacted(self.cache)}
        shown |= {"providers": "***", "secret_keys": "***", "webhook_secret_keys": "***", "accounts": redacted(self.accounts)}
        shown |= {"catalog": self.catalog and redacted(self.catalog), "write": tuple(map(redacted, self.write))}
        return f"Settings({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def with_key(self) -> Settings:
        """The same with a random key if none was given."""
        return self if self.api_key or self.providers else msgspec.structs.replace(self, api_key=secrets.token_hex(32))

    def _check_ranges(self) -> None:
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"'port' is between 0 (any free one) and 65535, not {self.port}.")
        for name in _AT_LEAST_ZERO + _ABOVE_ZERO:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and name in _ABOVE_ZERO):
                least = "above" if name in _ABOVE_ZERO else "at least"
                raise SettingsError(f"{name!r} must be a number {least} 0, not {value:g}.")

    @property
    def is_shared_log(self) -> bool:
        """True if the log is in Redis, where other processes can follow it."""
        return self.cache == "sentinel" or self.cache.startswith(("redis://", "rediss://"))

    def _check_cache(self) -> None:
        if not (self.is_shared_log or self.cache in ("auto", "memory", "local")):
            raise SettingsError(
                f"--cache is 'auto', 'memory', 'local' or a redis:// or rediss:// URI, not {redacted(self.cache)!r}."
            )
        if self.cache == "local" and (self.temp or _is_postgres(self.catalog)):
            raise SettingsError("--cache local keeps the log in a file beside the catalog; this catalog is no file that stays.")
        if self.cache == "auto" and _is_postgres(self.catalog):
            raise SettingsError(
                "A PostgreSQL catalog has no place for the log beside it: give --cache redis://HOST:6379 (or --cache memory, "
                "with which a crash loses what is not persisted yet)."
            )
        if not _PREFIX.fullmatch(self.cache_prefix):
            raise SettingsError("'cache_prefix' consists of letters, digits and - _ . : (and is not empty).")
        if (self.cache == "sentinel") != bool(self.cache_sentinels):
            raise SettingsError("'cache_sentinels' and cache = 'sentinel' belong together: Sentinels tell where the Redis is.")
        if self.cache_sentinels and not self.cache_service_name:
            raise SettingsError("'cache_service_name' is missing: the name under which the Sentinels know the Redis.")
        for sentinel in self.cache_sentinels:
            host, _, port = sentinel.rpartition(":")
            if not host or not port.isdigit():
                raise SettingsError(f"'cache_sentinels' are written as host:port, not {sentinel!r}.")

    def _check_webhooks(self) -> None:
        wrong = network_rules(self.webhook_blocked_networks)
        if wrong:
            raise SettingsError(f"'webhook_blocked_networks': {wrong[0]}.")
        wrong = host_rules(self.webhook_allow_delivery_hosts)
        if wrong:
            raise SettingsError(f"'webhook_allow_delivery_hosts': {wrong[0]}.")
        if any(not key for key in self.webhook_secret_keys):
            raise SettingsError("'webhook_secret_keys' must not be empty; make one with: openssl rand -hex 32")

    def _check_scalable(self) -> None:
        """Each refusal with its reason and its cure."""
        if self.providers and not (self.secret_keys and _is_postgres(self.accounts)):
            raise SettingsError(
                "--scalable: several processes must share 'secret_keys', and a database of accounts: postgresql://USER@HOST/DATABASE."
            )
        if not self.api_key and not self.providers:
            raise SettingsError("--scalable: several processes must share one API key; give it with --api-key.")
        if not _is_postgres(self.catalog):
            raise SettingsError(
                "--scalable: a SQLite catalog belongs to one process; give a PostgreSQL one: postgresql://USER@HOST/DATABASE."
            )
        for place in self.write:
            scheme = place.partition("://")[0] if "://" in place else "file"
            if scheme in ("duckdb", "sqlite"):
                raise SettingsError(
                    f"--scalable: tables in {scheme} belong to one process; give -w postgresql://USER@HOST/DATABASE."
                )
        if self.write and not any(map(_is_postgres, self.write)):
            raise SettingsError(
                "--scalable: tables have no place that several processes share; give -w postgresql://USER@HOST/DATABASE."
            )
        if not self.is_shared_log:
            raise SettingsError("--scalable: a log of one process cannot be shared; give --cache redis://HOST:6379.")


def mounts_of(entries: Sequence[Mapping[str, Any]]) -> list[Mount]:
    """What the setting `mounts` says. `SettingsError` if it cannot be."""
    try:
        trees = [msgspec.convert(entry, Tree) for entry in entries]
        mounts = [Mount(_keys(tree.path), _keys(tree.node)) for tree in trees]
        Mounts(mounts)
    except ValueError as error:  # msgspec's too
        raise SettingsError(f"'mounts' cannot be: {error}.") from None
    return mounts


def _keys(path: str) -> tuple[str, ...]:
    return tuple(key for key in path.split("/") if key)


def _is_postgres(uri: str | None) -> bool:
    return uri is not None and uri.startswith(POSTGRES)


def from_env(environ: Mapping[str, str], **given: Any) -> Settings:
    """Settings from the environment; those `given` come first. `SettingsError` also for a name of ours that is no setting."""
    values: dict[str, Any] = {}
    hints = get_type_hints(Settings)
    names = {f"{ENVIRONMENT}{field.upper()}": field for field in Settings.__struct_fields__ if field not in _NOT_IN_ENVIRONMENT}
    for name, field in [*ALIASES.items(), *names.items()]:
        if name in environ:
            values[field] = _value(name, environ[name], hints[field])
    known = set(names)
    for name in environ:
        if name.startswith(ENVIRONMENT) and name not in known:
            raise SettingsError(f"There is no setting {name}; known are {', '.join(sorted(known))}.")
    return Settings(**(values | given))


def _entries(text: str) -> tuple[str, ...]:
    """Entries of a list: with commas between them, or as JSON, which is how the reference server reads its own names."""
    if text.lstrip().startswith("["):
        try:
            return msgspec.json.decode(text, type=tuple[str, ...])
        except msgspec.DecodeError:
            return (text,)
    return tuple(part.strip() for part in text.split(_BETWEEN) if part.strip())


def _value(name: str, text: str, kind: Any) -> Any:
    given: Any = text
    if get_origin(kind) is tuple:
        given = _entries(text)
    elif kind is bool:
        given = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.strip().lower(), text)
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        choices = f" (one of {', '.join(map(str, get_args(kind)))})" if get_origin(kind) is Literal else ""
        raise SettingsError(f"{name}={text!r} cannot be{choices}: {error}") from None
