"""What a node was before its edits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from litestar import Request, delete, get
from litestar.response.base import ASGIResponse

from ..catalog.port import Revision
from ..domain.commands import DeleteRevision
from ..domain.errors import Malformed
from .answers import answer, null
from .params import Query, base_url, keys_of
from .services import ack_of, edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]


@get(["/revisions", "/revisions/{path:path}"], opt={"scopes": ("read:metadata",)})
async def get_revisions(request: Connection) -> ASGIResponse:
    """Earlier states of a node, oldest first, a page of them."""
    edge = edge_of(request)
    query = Query(request.scope)
    offset = query.integer("page[offset]", 0) or 0
    limit = query.integer("page[limit]", 100, high=300) or 0
    keys = keys_of(request)
    revisions, count = await edge.browse.revisions(await edge.browse.resolve(keys), offset=offset, limit=limit)
    url = f"{base_url(request.scope, edge.settings.root_path)}/revisions/{'/'.join(keys)}"
    more = limit > 0 and offset + limit < count
    links = {
        "self": f"{url}?page[offset]={offset}&page[limit]={limit}",
        "first": f"{url}?page[limit]={limit}",
        "next": f"{url}?page[offset]={offset + limit}&page[limit]={limit}" if more else None,
    }
    content = {"data": [_to_wire(r) for r in revisions], "error": None, "links": links, "meta": {"count": count}}
    return await answer(request.scope, content)


@delete(["/revisions", "/revisions/{path:path}"], opt={"scopes": ("delete:revision",)}, status_code=200)
async def delete_revision(request: Connection) -> ASGIResponse:
    """Forget one revision."""
    number = Query(request.scope).integer("number", None, low=1)
    if number is None:
        raise Malformed("Say which revision: ?number=N.")
    await edge_of(request).writer.submit(keys_of(request), DeleteRevision(number), ack=ack_of(request.scope))
    return null()


def _to_wire(revision: Revision) -> dict[str, Any]:
    when = datetime.fromtimestamp(revision.time, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    attributes = {
        "metadata": revision.metadata,
        "specs": [{"name": s.name, "version": s.version} for s in revision.specs],
        "access_tags": list(revision.access_tags),
        "time_updated": when,
    }
    return {"revision_number": revision.number, "attributes": attributes}


ROUTES = [get_revisions, delete_revision]
