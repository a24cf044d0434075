"""Nodes: read, create, edit, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jmespath
import orjson
from jmespath.exceptions import JMESPathError
from litestar import Request, delete, get, patch, post, put
from litestar.response.base import ASGIResponse

from ..domain.commands import DeleteNode
from ..domain.errors import Malformed, Unsatisfiable
from ..domain.search import Page, Search
from ..ingest.writer import Accepted
from ..nodes.repository import Located
from ..query.inside import Content
from ..wire.bodies import parse_create, parse_patch, parse_replace
from ..wire.old_clients import version_of
from ..wire.resources import ATTRIBUTES, View, column_resource, create_reply, inner_resource, resource
from .answers import answer, null
from .params import Query, base_url, header, keys_of
from .services import Edge, ack_of, edge_of

__all__ = ["ROUTES", "created", "view_of"]

Connection = Request[Any, Any, Any]

#: Levels of a file that are told at once.
MAX_DEPTH = 5
#: So many children are told with their container, if some have keys that are odd.
MAX_INLINED = 500
_FIELDS = {*ATTRIBUTES, "count", ""}


def view_of(edge: Edge, request: Connection, query: Query) -> View:
    """How the client wants to see nodes."""
    fields = query.all("fields")
    for field in fields:
        if field not in _FIELDS:
            raise Malformed(f"There is no field {field!r}; known are {', '.join(sorted(_FIELDS - {''}))}.")
    selected = query.get("select_metadata")
    return View(
        base_url=base_url(request.scope, edge.settings.root_path),
        fields=frozenset(f for f in fields if f) if fields else None,
        select_metadata=None if selected is None else _selection(selected),
        include_data_sources=query.flag("include_data_sources", False),
        omit_links=query.flag("omit_links", False),
        version=version_of(header(request.scope, b"user-agent")),
    )


def _selection(expression: str) -> Callable[[Any], Any]:
    """A compiled JMESPath. It can fail on what it is applied to, too: a function of an argument it does not take."""
    try:
        compiled = jmespath.compile(expression)
    except JMESPathError as error:
        raise Unsatisfiable(f"'select_metadata' is not a JMESPath expression: {error}") from None

    def select(metadata: Any) -> Any:
        try:
            return compiled.search(metadata)
        except JMESPathError as error:
            raise Unsatisfiable(f"'select_metadata' does not apply to this metadata: {error}") from None

    return select


async def _resource(edge: Edge, at: Located, view: View, depth: int) -> dict[str, Any]:
    """One node, or column, as the client wants to see it. `depth`: levels that are told with a container inside of a file."""
    if at.column is not None:
        return column_resource(at.path, await edge.reader.column_structure(at), view)
    if at.inside:
        wants_all = view.fields is None or "structure" in view.fields
        below = await edge.browse.contents(at, depth if wants_all else 0)
        return inner_resource(at.node, at.path, view, children=at.children, contents=_inlined(below, view))
    await edge.browse.check_begin(at)
    children = contents = None
    if at.node.family == "container" and (view.fields is None or view.fields & {"structure", "count"}):
        children, has_odd_keys = await edge.browse.census(at)
        if has_odd_keys and depth and children <= MAX_INLINED and (view.fields is None or "structure" in view.fields):
            contents = await _children(edge, at, view)
    return resource(at.node, at.path, view, children=children, contents=contents)


async def _children(edge: Edge, at: Located, view: View) -> dict[str, Any] | None:
    """All children, told with their container: a client that puts keys into URLs as they are finds those with odd keys so.

    None if they are too many: clients take what is told for all there is, and a count may be told as less (`exact_count_limit`).
    """
    listing = await edge.browse.search(at, Search(), Page(limit=MAX_INLINED))
    if listing.next_cursor is not None:
        return None
    return {hit.path[-1]: resource(hit.node, hit.path, view, children=hit.children) for hit in listing.hits}


def _inlined(contents: tuple[Content, ...] | None, view: View) -> dict[str, Any] | None:
    if contents is None:
        return None
    found = {}
    for content in contents:
        hit, below = content.hit, _inlined(content.contents, view)
        found[hit.path[-1]] = inner_resource(hit.node, hit.path, view, children=hit.children, contents=below)
    return found


@get(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("read:metadata",)})
async def get_metadata(request: Connection) -> ASGIResponse:
    """One node."""
    edge = edge_of(request)
    query = Query(request.scope)
    view = view_of(edge, request, query)
    depth = query.integer("max_depth", None, high=MAX_DEPTH)
    at = await edge.browse.resolve(keys_of(request))
    data = await _resource(edge, at, view, MAX_DEPTH if depth is None else depth)
    meta = {"root_path": edge.settings.root_path or "/"} if query.flag("root_path", False) else {}
    return await answer(request.scope, {"data": data, "error": None, "links": None, "meta": meta})


@post(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("write:metadata", "create:node")}, status_code=200)
async def post_metadata(request: Connection) -> ASGIResponse:
    """Create a node under the container at `path`; storage is allocated for data that this server will hold."""
    return await created(request, registered=False)


@patch(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("write:metadata",)}, status_code=200)
async def patch_metadata(request: Connection) -> ASGIResponse:
    """Edit metadata and specs by JSON Patch or merge patch."""
    edge = edge_of(request)
    drop = Query(request.scope).flag("drop_revision", False)
    command = parse_patch(await request.body(), drop)
    accepted = await edge.writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return _edited(accepted, command.access_tags is not None)


@put(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("write:metadata",)}, status_code=200)
async def put_metadata(request: Connection) -> ASGIResponse:
    """Replace metadata or specs."""
    edge = edge_of(request)
    command = parse_replace(await request.body(), Query(request.scope).flag("drop_revision", False))
    accepted = await edge.writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return _edited(accepted, bool(command.access_tags))


@delete(["/metadata", "/metadata/{path:path}"], opt={"scopes": ("delete:node", "delete:revision")}, status_code=200)
async def delete_metadata(request: Connection) -> ASGIResponse:
    """Delete a node; with `recursive` its children, without `external_only` the data that this server holds."""
    edge = edge_of(request)
    query = Query(request.scope)
    command = DeleteNode(recursive=query.flag("recursive", False), external_only=query.flag("external_only", True))
    await edge.writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return null()


async def created(request: Connection, *, registered: bool) -> ASGIResponse:
    """Create a node as the body says. `registered`: its data exist already."""
    edge = edge_of(request)
    command = parse_create(await request.body(), registered)
    for source in command.data_sources if not registered else ():
        if source.management == "external":
            await edge.reader.files.check(source.mimetype, source.assets)
    accepted = await edge.writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    assert accepted.node is not None
    url = base_url(request.scope, edge.settings.root_path)
    reply = create_reply(accepted.node, accepted.path, url, command.access_tags)
    return _json(reply | _rewritten(accepted))


def _edited(accepted: Accepted, tags_asked: bool) -> ASGIResponse:
    assert accepted.node is not None
    reply: dict[str, Any] = {"id": accepted.path[-1] if accepted.path else ""}
    if tags_asked:
        reply["access_tags"] = list(accepted.node.access_tags)
    return _json(reply | _rewritten(accepted))


def _rewritten(accepted: Accepted) -> dict[str, Any]:
    """Metadata are told to the client only if they are not those that it sent."""
    return {"metadata": accepted.node.metadata} if accepted.rewritten and accepted.node is not None else {}


def _json(content: Any) -> ASGIResponse:
    return ASGIResponse(body=orjson.dumps(content), media_type="application/json")


ROUTES = [get_metadata, post_metadata, patch_metadata, put_metadata, delete_metadata]
