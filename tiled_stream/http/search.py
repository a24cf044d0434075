"""Listings: search one level or all, distinct values."""

from __future__ import annotations

from typing import Any

from litestar import Request, get
from litestar.response.base import ASGIResponse

from ..domain.errors import Unsatisfiable
from ..domain.search import Page, Search
from ..query.listing import Listing
from ..wire.queries import parse_filters, parse_sort
from ..wire.resources import inner_resource, resource
from .answers import answer
from .metadata import view_of
from .params import Query, base_url, keys_of
from .services import edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]


@get(["/search", "/search/{path:path}"], opt={"scopes": ("read:metadata",)})
async def get_search(request: Connection) -> ASGIResponse:
    """Children of a container that match all filters, a page of them."""
    return await _search(request, deep=False)


@get(["/search-deep", "/search-deep/{path:path}"], opt={"scopes": ("read:metadata",)})
async def get_search_deep(request: Connection) -> ASGIResponse:
    """Everything below a container that matches all filters, in order of creation."""
    return await _search(request, deep=True)


@get(["/distinct", "/distinct/{path:path}"], opt={"scopes": ("read:metadata",)})
async def get_distinct(request: Connection) -> ASGIResponse:
    """Distinct metadata values, families and specs among matching children."""
    edge = edge_of(request)
    query = Query(request.scope)
    at = await edge.browse.resolve(keys_of(request))
    found = await edge.browse.distinct(
        at,
        parse_filters(query.pairs),
        metadata=query.all("metadata"),
        structure_families=query.flag("structure_families", False),
        specs=query.flag("specs", False),
    )
    counted = query.flag("counts", False)

    def values(pairs: list[Any] | None) -> list[dict[str, Any]] | None:
        return None if pairs is None else [{"value": v, "count": n if counted else None} for v, n in pairs]

    content = {
        "metadata": {key: values(pairs) for key, pairs in found.metadata.items()} or None,
        "structure_families": values(found.structure_families),
        "specs": values(found.specs),
    }
    return await answer(request.scope, content)


async def _search(request: Connection, *, deep: bool) -> ASGIResponse:
    edge = edge_of(request)
    query = Query(request.scope)
    view = view_of(edge, request, query)
    search = Search(parse_filters(query.pairs), parse_sort([s for s in query.all("sort") if s]))
    page = _page(query, search, deep=deep)
    keys = keys_of(request)
    at = await edge.browse.resolve(keys)
    max_depth = query.integer("max_depth", None, low=1, high=64) if deep else query.integer("max_depth", None, high=5)
    url = f"{base_url(request.scope, edge.settings.root_path)}/search{'-deep' if deep else ''}/{'/'.join(keys)}"
    if view.fields == frozenset(("count",)):
        count = await edge.browse.count(at, search.filters, deep=deep, max_depth=max_depth)
        listing = Listing((), count)
    else:
        listing = await edge.browse.search(at, search, page, deep=deep, max_depth=max_depth, bare=view.fields == frozenset())
    told = inner_resource if listing.is_inside else resource
    content = {
        "data": [told(h.node, h.path, view, children=h.children) for h in listing.hits],
        "error": None,
        "links": _links(url, page, listing),
        "meta": {"count": listing.count},
    }
    return await answer(request.scope, content, headers={"Cache-Control": "must-revalidate"})


def _page(query: Query, search: Search, *, deep: bool) -> Page:
    offset = query.integer("page[offset]", None)
    cursor = query.integer("page[cursor]", None)
    limit = query.integer("page[limit]", 100, high=300) or 0
    if offset is not None and cursor is not None:
        raise Unsatisfiable("Give 'page[offset]' or 'page[cursor]', not both.")
    if deep and search.sort:
        raise Unsatisfiable("A deep search has only the order of creation; leave 'sort' out.")
    if cursor is not None and any(k.key for k in search.sort):
        raise Unsatisfiable("'page[cursor]' goes with the default order only; use 'page[offset]'.")
    return Page(limit=limit, offset=offset or 0, cursor=cursor)


def _links(url: str, page: Page, listing: Listing) -> dict[str, str | None]:
    limit = f"page[limit]={page.limit}"
    here = f"page[cursor]={page.cursor}" if page.cursor is not None else f"page[offset]={page.offset}"
    following = None
    if listing.next_cursor is not None:
        following = f"{url}?page[cursor]={listing.next_cursor}&{limit}"
    elif listing.next_offset is not None:
        following = f"{url}?page[offset]={listing.next_offset}&{limit}"
    return {"self": f"{url}?{here}&{limit}", "first": f"{url}?{limit}", "next": following}


ROUTES = [get_search, get_search_deep, get_distinct]
