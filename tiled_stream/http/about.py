"""What this server is, and how it is: about, health."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from litestar import Request, get
from litestar.response.base import ASGIResponse

from .._version import __version__
from ..domain.search import FILTERS
from ..wire.negotiate import ALIASES, FORMATS
from .answers import answer
from .auth import authentication_of
from .params import API, base_url, header
from .services import Edge, edge_of
from .user_access import UserAccess

__all__ = ["API_ROUTES", "ROOT_ROUTES"]

Connection = Request[Any, Any, Any]

#: The version of the protocol that is spoken; clients compare it.
PROTOCOL_VERSION = "0.2.20"


@get("/", opt={"scopes": ()})
async def get_about(request: Connection) -> ASGIResponse:
    """Formats, queries, how to authenticate. Needs no credentials."""
    edge = edge_of(request)
    url = base_url(request.scope, edge.settings.root_path)
    content = {
        "api_version": 0,
        "library_version": PROTOCOL_VERSION,
        "formats": FORMATS,
        "aliases": ALIASES,
        "queries": FILTERS,
        "authentication": _authentication(request, edge, url),
        "links": {"self": url, "documentation": url.removesuffix(API) + "/docs"},
        "meta": {"root_path": edge.settings.root_path + "/api", "server": "tiled_stream", "server_version": __version__},
    }
    expires = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    return await answer(request.scope, content, headers={"Expires": expires})


@get("/healthz", opt={"scopes": ()})
async def get_healthz(request: Connection) -> ASGIResponse:
    """The loop is alive; says nothing of dependencies."""
    return ASGIResponse(body=b'{"status":"ready"}', media_type="application/json")


@get("/readyz", opt={"scopes": ()})
async def get_readyz(request: Connection) -> ASGIResponse:
    """Should this server get traffic? 503 with the reason if not."""
    await edge_of(request).services.ready()
    return ASGIResponse(body=b'{"status":"ready"}', media_type="application/json")


def _authentication(request: Connection, edge: Edge, url: str) -> dict[str, Any]:
    access = request.app.state["access"]
    if isinstance(access, UserAccess):
        return authentication_of(access, url, header(request.scope, b"user-agent") or "")
    return {"required": not edge.settings.public, "providers": [], "links": None}


API_ROUTES = [get_about]
ROOT_ROUTES = [get_healthz, get_readyz]
