"""Where a server is, from what a user types: the forms that the stock client takes.

What must stay true: a key in the address is taken out of it before anything else sees the address, so that no URL, log line or
error can show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import msgspec

from ..domain.errors import Malformed

__all__ = ["API", "Address", "keys_of", "parse_address"]

API = "/api/v1"


class Address(msgspec.Struct, frozen=True):
    """`base` is the root of the API, without a slash at its end; `path` the node that the address itself names."""

    base: str
    path: tuple[str, ...] = ()

    def many(self) -> str:
        """URL of the socket for many nodes."""
        return f"{self._ws()}/stream/many?envelope_format=msgpack"

    def single(self, path: tuple[str, ...], start: int | None, epoch: str | None = None) -> str:
        """URL of the stream of one node, from a sequence of this epoch on."""
        query = "" if start is None else f"&start={start}"
        if start is not None and epoch is not None:
            query += f"&epoch={quote(epoch, safe='')}"
        return f"{self._ws()}/stream/single/{_quoted(path)}?envelope_format=msgpack{query}"

    def array(self, path: tuple[str, ...], taken: str) -> str:
        """URL of a region of an array."""
        return f"{self.base}/array/full/{_quoted(path)}?" + urlencode({"slice": taken}, safe=":,")

    def _ws(self) -> str:
        return self.base.replace("http", "ws", 1)


def parse_address(uri: str) -> tuple[Address, str | None]:
    """The address and the key that stood in it, if one did. `Malformed` never repeats the query.

    ``http://HOST``, with or without ``/api/v1``, with or without ``/metadata/PATH``; ws and wss are understood as well.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise Malformed("The address of the server cannot be understood; expected is one such as http://HOST:8000.") from None
    scheme = {"http": "http", "https": "https", "ws": "http", "wss": "https"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise Malformed("The address of the server begins with http:// or https:// and a host.")
    if parts.username is not None or parts.password is not None:
        raise Malformed("An address holds no user name or password; give api_key= or token=.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    origin = f"{scheme}://{host}" + ("" if port is None else f":{port}")
    root, _, path = parts.path.partition("/metadata")
    keys = parse_qs(parts.query).get("api_key")
    return Address(origin + _api_root(root), keys_of(unquote(path))), keys[-1] if keys else None


def keys_of(path: str | Sequence[str]) -> tuple[str, ...]:
    """The keys of a path: a text with slashes, or the keys themselves. Empty ones do not count."""
    keys = path.split("/") if isinstance(path, str) else path
    return tuple(key for key in keys if key)


def _api_root(path: str) -> str:
    root = path.rstrip("/")
    segments = root.split("/")
    if "api" not in segments:
        return root + API
    return root if segments[-1] != "api" else root + "/v1"


def _quoted(path: tuple[str, ...]) -> str:
    return "/".join(quote(key, safe="") for key in path)
