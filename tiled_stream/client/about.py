"""What a node is, asked once over HTTP: before a program decides how to follow it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from .address import keys_of, parse_address
from .credentials import Credentials, Token
from .faults import fault_of_status

__all__ = ["NodeInfo", "node_of"]


class NodeInfo(msgspec.Struct, frozen=True):
    """Family, names of specs, metadata."""

    path: tuple[str, ...]
    family: str
    specs: tuple[str, ...]
    metadata: dict[str, Any]


def node_of(
    uri: str, path: str = "", *, api_key: str | None = None, token: Token | None = None, seconds: float = 10.0
) -> NodeInfo:
    """Blocking. Raises what the server answers, or `httpx.HTTPError` if it does not."""
    address, key = parse_address(uri)
    credentials = Credentials(key if api_key is None and token is None else api_key, token=token)
    keys = (*address.path, *keys_of(path))
    url = f"{address.base}/metadata/" + "/".join(quote(key, safe="") for key in keys)
    response = httpx.get(url, headers=credentials.headers(), timeout=seconds)
    if response.status_code != 200:
        raise fault_of_status(response.status_code, response.text)
    attributes = response.json()["data"]["attributes"]
    specs = tuple(spec["name"] for spec in attributes.get("specs") or ())
    return NodeInfo(keys, attributes["structure_family"], specs, attributes.get("metadata") or {})
