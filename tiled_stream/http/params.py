"""What a request says beside its body: query string, path, the URL under which the client knows this server."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from ..domain.errors import Malformed

__all__ = ["API", "Query", "base_url", "header", "keys_of", "segments"]

API = "/api/v1"

_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}


class Query:
    """The query string, parsed once."""

    __slots__ = ("pairs",)

    def __init__(self, scope: Any) -> None:
        raw = scope["query_string"]
        self.pairs: list[tuple[str, str]] = parse_qsl(raw.decode("latin-1"), keep_blank_values=True) if raw else []

    def get(self, name: str) -> str | None:
        """The first value, or None."""
        for key, value in self.pairs:
            if key == name:
                return value
        return None

    def all(self, name: str) -> list[str]:
        """All values, in order."""
        return [value for key, value in self.pairs if key == name]

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self.get(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise Malformed(f"{name!r} is true or false, not {value!r}.")

    def integer(self, name: str, default: int | None, *, low: int = 0, high: int = 1 << 53) -> int | None:
        """An integer between `low` and `high`."""
        value = self.get(name)
        if value is None:
            return default
        try:
            number = int(value)
        except ValueError:
            raise Malformed(f"{name!r} is an integer, not {value!r}.") from None
        if not low <= number <= high:
            raise Malformed(f"{name!r} is between {low} and {high}, not {number}.")
        return number


def keys_of(request: Any) -> tuple[str, ...]:
    """The keys by which a request addresses a node; none for the root. Routes end in `{path:path}` or have no parameter."""
    return segments(request.scope["path_params"].get("path", ""))


def segments(path: str) -> tuple[str, ...]:
    """The keys of a path; empty segments do not count."""
    return tuple(s for s in path.split("/") if s)


def header(scope: Any, name: bytes) -> str | None:
    """A header by its lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def base_url(scope: Any, root_path: str) -> str:
    """``http://host/root/api/v1`` as the client sees it, behind proxies too; no slash at the end."""
    host = proto = None
    for key, value in scope["headers"]:
        if key == b"host":
            host = host or value.decode("latin-1")
        elif key == b"x-forwarded-host":
            host = value.decode("latin-1").split(",")[0].strip()
        elif key == b"x-forwarded-proto":
            proto = value.decode("latin-1").split(",")[0].strip()
    scheme = proto or scope.get("scheme", "http")
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    if host is None:
        server = scope.get("server") or ("localhost", None)
        host = server[0] if server[1] is None else f"{server[0]}:{server[1]}"
    return f"{scheme}://{host}{root_path}{scope['state'].get('mounted_at', '')}{API}"
