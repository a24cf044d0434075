"""The live page: `/` and what it loads.

Built from `web/` and shipped as it is; nothing comes from elsewhere, and the policy that is sent with it says so. Names of assets
hold a hash of their content: they are kept for ever, the index is asked for each time.
"""

from __future__ import annotations

import asyncio
import gzip
from functools import cache
from hashlib import blake2b
from html import escape
from importlib import resources
from typing import Any, NamedTuple

from litestar import Request, get
from litestar.response.base import ASGIResponse

from .._version import __version__
from ..domain.errors import NotFound
from .answers import not_modified
from .params import header
from .services import edge_of

__all__ = ["POLICY", "ROUTES"]

Connection = Request[Any, Any, Any]

#: What the page may do: load from here, speak with here. A script that somebody smuggles into metadata runs nowhere.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Vary": "Accept-Encoding"}
_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "html": "text/html", "txt": "text/plain"}


class _Asset(NamedTuple):
    body: bytes
    packed: bytes
    media_type: str


@get("/", opt={"scopes": ()})
async def get_page(request: Connection) -> ASGIResponse:
    """The index. It is the same for everybody: what somebody may see is decided by the requests that it makes."""
    root = edge_of(request).settings.root_path + str(request.scope["state"].get("mounted_at", ""))
    body = await asyncio.to_thread(_index, root)
    tag = blake2b(body, digest_size=16).hexdigest()
    headers = {**_HEADERS, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY, "ETag": f'"{tag}"'}
    same = not_modified(request.scope, tag)
    if same is not None:
        return same
    return ASGIResponse(body=body, media_type="text/html", headers=headers)


@get("/page/{name:str}", opt={"scopes": ()}, include_in_schema=False)
async def get_asset(request: Connection) -> ASGIResponse:
    """Script, style, worker, icon, licences."""
    name = request.scope["path_params"]["name"]
    asset = (await asyncio.to_thread(_assets)).get(name)
    if asset is None:
        raise NotFound(f"The page has no part {name!r}; reload it.")
    # A worker answers to the policy that it came with, not to that of the page.
    headers = {**_HEADERS, "Cache-Control": "public, max-age=31536000, immutable", "Content-Security-Policy": POLICY}
    body = asset.body
    if "gzip" in (header(request.scope, b"accept-encoding") or "") and len(asset.packed) < len(body):
        body, headers["Content-Encoding"] = asset.packed, "gzip"
    return ASGIResponse(body=body, media_type=asset.media_type, headers=headers)


@cache
def _assets() -> dict[str, _Asset]:
    """All of it, read and packed once, when the first browser comes."""
    found = {}
    for file in resources.files("tiled_stream").joinpath("page").iterdir():
        body = file.read_bytes()
        found[file.name] = _Asset(body, gzip.compress(body, 9, mtime=0), _TYPES.get(file.name.rpartition(".")[2], "text/plain"))
    return found


@cache
def _index(root: str) -> bytes:
    """With a base where the prefix is known: its address may come without the slash that relative links need."""
    text = _assets()["index.html"].body.decode().replace("VERSION", escape(__version__))
    if root:
        text = text.replace("<head>", f'<head>\n    <base href="{escape(root)}/" />', 1)
    return text.encode()


ROUTES = [get_page, get_asset]
