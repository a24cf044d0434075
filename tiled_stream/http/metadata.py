"""Nodes: read, create, edit, delete; revisions; registered files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import jmespath
import orjson
from jmespath.exceptions import JMESPathError
from litestar import Request, delete, get, patch, post, put
from litestar.response.base import ASGIResponse

from ..catalog.port import Revision
from ..domain.commands import DeleteNode, DeleteRevision, ReplaceMetadata
from ..domain.errors import Malformed, Unsatisfiable
from ..ingest.writer import Accepted
from ..nodes.repository import Located
from ..wire.bodies import parse_create, parse_data_source, parse_patch, parse_replace
from ..wire.resources import ATTRIBUTES, View, column_resource, create_reply, resource
from .answers import answer, null
from .params import Query, base_url, segments
from .services import Edge, ack_of, edge_of

__all__ = ["ROUTES", "located_resource", "view_of"]

Connection = Request[Any, Any, Any]

_FIELDS = {*ATTRIBUTES, "count", ""}


def view_of(edge: Edge, request: Connection, query: Query) -> View:
    """How the client wants to see nodes."""
    fields = query.all("fields")
    for field in fields:
        if field not in _FIELDS:
            raise Malformed(f"There is no field {field!r}; known are {', '.join(sorted(_FIELDS - {''}))}.")
    query.integer("max_depth", None, high=5 if "/search-deep" not in request.scope["path"] else 64)
    selected = query.get("select_metadata")
    select = None
    if selected is not None:
        try:
            select = jmespath.compile(selected).search
        except JMESPathError as error:
            raise Unsatisfiable(f"'select_metadata' is not a JMESPath expression: {error}") from None
    return View(
        base_url=base_url(request.scope, edge.settings.root_path),
        fields=frozenset(f for f in fields if f) if fields else None,
        select_metadata=select,
        include_data_sources=query.flag("include_data_sources", False),
        omit_links=query.flag("omit_links", False),
    )


async def located_resource(edge: Edge, at: Located, view: View) -> dict[str, Any]:
    """One node, or column, as the client wants to see it."""
    if at.column is not None:
        return column_resource(at.path, await edge.reader.array_structure(at), view)
    children = None
    if at.node.family == "container" and (view.fields is None or view.fields & {"structure", "count"}):
        children = await edge.browse.child_count(at)
    return resource(at.node, at.path, view, children=children)


@get(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("read:metadata",)})
async def get_metadata(request: Connection, path: str = "") -> ASGIResponse:
    """One node."""
    edge = edge_of(request)
    query = Query(request.scope)
    view = view_of(edge, request, query)
    at = await edge.browse.resolve(segments(path))
    data = await located_resource(edge, at, view)
    meta = {"root_path": edge.settings.root_path or "/"} if query.flag("root_path", False) else {}
    return await answer(request.scope, {"data": data, "error": None, "links": None, "meta": meta})


@post(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("write:metadata", "create:node")}, status_code=200)
async def post_metadata(request: Connection, path: str = "") -> ASGIResponse:
    """Create a node under the container at `path`; storage is allocated for data that this server will hold."""
    edge = edge_of(request)
    return await _create(request, edge, path, registered=False)


@post(["/register", "/register/{path:path}"], opt={"scopes": ("write:metadata", "create:node", "register")}, status_code=200)
async def post_register(request: Connection, path: str = "") -> ASGIResponse:
    """Create a node for data that exist already."""
    edge = edge_of(request)
    return await _create(request, edge, path, registered=True)


@patch(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("write:metadata",)}, status_code=200)
async def patch_metadata(request: Connection, path: str = "") -> ASGIResponse:
    """Edit metadata and specs by JSON Patch or merge patch."""
    edge = edge_of(request)
    drop = Query(request.scope).flag("drop_revision", False)
    command = parse_patch(await request.body(), drop)
    accepted = await edge.writer.submit(segments(path), command, ack=ack_of(request.scope))
    return _edited(accepted, command.access_tags is not None)


@put(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("write:metadata",)}, status_code=200)
async def put_metadata(request: Connection, path: str = "") -> ASGIResponse:
    """Replace metadata or specs."""
    edge = edge_of(request)
    command: ReplaceMetadata = parse_replace(await request.body(), Query(request.scope).flag("drop_revision", False))
    accepted = await edge.writer.submit(segments(path), command, ack=ack_of(request.scope))
    return _edited(accepted, bool(command.access_tags))


@delete(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("delete:node", "delete:revision")}, status_code=200)
async def delete_metadata(request: Connection, path: str = "") -> ASGIResponse:
    """Delete a node; with `recursive` its children, without `external_only` the data that this server holds."""
    edge = edge_of(request)
    query = Query(request.scope)
    command = DeleteNode(recursive=query.flag("recursive", False), external_only=query.flag("external_only", True))
    await edge.writer.submit(segments(path), command, ack=ack_of(request.scope))
    return null()


@get(["/revisions", "/revisions/{path:path}"], opt={"scopes": ("read:metadata",)})
async def get_revisions(request: Connection, path: str = "") -> ASGIResponse:
    """What a node was before its edits, oldest first."""
    edge = edge_of(request)
    query = Query(request.scope)
    offset = query.integer("page[offset]", 0) or 0
    limit = query.integer("page[limit]", 100, high=300)
    assert limit is not None
    keys = segments(path)
    revisions, count = await edge.browse.revisions(await edge.browse.resolve(keys), offset=offset, limit=limit)
    url = f"{base_url(request.scope, edge.settings.root_path)}/revisions/{'/'.join(keys)}"
    more = offset + limit < count and limit > 0
    links = {
        "self": f"{url}?page[offset]={offset}&page[limit]={limit}",
        "first": f"{url}?page[limit]={limit}",
        "next": f"{url}?page[offset]={offset + limit}&page[limit]={limit}" if more else None,
    }
    content = {"data": [_revision(r) for r in revisions], "error": None, "links": links, "meta": {"count": count}}
    return await answer(request.scope, content)


@delete(["/revisions", "/revisions/{path:path}"], opt={"scopes": ("delete:revision",)}, status_code=200)
async def delete_revision(request: Connection, path: str = "") -> ASGIResponse:
    """Forget one revision."""
    edge = edge_of(request)
    number = Query(request.scope).integer("number", None, low=1)
    if number is None:
        raise Malformed("Say which revision: ?number=N.")
    await edge.writer.submit(segments(path), DeleteRevision(number), ack=ack_of(request.scope))
    return null()


@put("/data_source/{path:path}", opt={"scopes": ("write:metadata", "register")}, status_code=200)
async def put_data_source(request: Connection, path: str) -> ASGIResponse:
    """Files of an external array changed: its structure and assets now, and which region is new."""
    edge = edge_of(request)
    query = Query(request.scope)
    command = parse_data_source(await request.body(), query.get("patch_shape"), query.get("patch_offset"))
    await edge.writer.submit(segments(path), command, ack=ack_of(request.scope))
    return null()


async def _create(request: Connection, edge: Edge, path: str, *, registered: bool) -> ASGIResponse:
    command = parse_create(await request.body(), registered)
    accepted = await edge.writer.submit(segments(path), command, ack=ack_of(request.scope))
    assert accepted.node is not None
    url = base_url(request.scope, edge.settings.root_path)
    return _json(create_reply(accepted.node, accepted.path, url, command.access_tags))


def _edited(accepted: Accepted, tags_asked: bool) -> ASGIResponse:
    assert accepted.node is not None
    reply: dict[str, Any] = {"id": accepted.path[-1] if accepted.path else ""}
    if tags_asked:
        reply["access_tags"] = list(accepted.node.access_tags)
    return _json(reply)


def _json(content: Any) -> ASGIResponse:
    return ASGIResponse(body=orjson.dumps(content), media_type="application/json")


def _revision(revision: Revision) -> dict[str, Any]:
    when = datetime.fromtimestamp(revision.time, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    specs = [{"name": s.name, "version": s.version} for s in revision.specs]
    attributes = {
        "metadata": revision.metadata,
        "specs": specs,
        "access_tags": list(revision.access_tags),
        "time_updated": when,
    }
    return {"revision_number": revision.number, "attributes": attributes}


ROUTES = [
    get_metadata,
    post_metadata,
    post_register,
    patch_metadata,
    put_metadata,
    delete_metadata,
    get_revisions,
    delete_revision,
    put_data_source,
]
