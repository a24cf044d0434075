"""Nodes as the resources that clients see: attributes, links, the answer to a creation.

A page has hundreds of them, so nothing here is done twice. What must stay true: every attribute is there, None if it was not
asked for; links can be filled in by `str.format` and requested as they stand, whatever the keys of the nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..domain.nodes import DataSource, Node
from ..domain.structures import ArrayStructure, Family, RaggedStructure, SparseStructure, Structure
from .old_clients import Version, adapted
from .structures import data_source_to_wire, structure_to_wire

__all__ = ["ATTRIBUTES", "View", "column_resource", "create_reply", "inner_resource", "link_path", "links", "resource"]

#: What `fields=` can ask for beside `count`.
ATTRIBUTES = ("metadata", "structure_family", "structure", "sorting", "specs", "data_sources", "access_tags")

_ESCAPES = {ord(c): f"%{ord(c):02X}" for c in "%?#{}"}
_INSERTION_ORDER = [{"key": "", "direction": 1}]


class View(msgspec.Struct, frozen=True):
    """How a client wants to see nodes. `base_url` has no slash at its end; `fields` None means all.

    `version`: of a client that is too old for all that there is.
    `select_metadata` picks a part of the metadata (a compiled JMESPath).
    """

    base_url: str
    fields: frozenset[str] | None = None
    select_metadata: Callable[[Any], Any] | None = None
    include_data_sources: bool = False
    omit_links: bool = False
    version: Version | None = None


def link_path(path: tuple[str, ...]) -> str:
    """The path inside a link. Escaped is only what would end the path, be unescaped, or be taken for a placeholder."""
    return "/".join(path).translate(_ESCAPES)


def links(family: str, structure: Structure | None, path: tuple[str, ...], base_url: str) -> dict[str, str]:
    """Absolute links with the placeholders that clients fill in."""
    at = link_path(path)
    found = {"self": f"{base_url}/metadata/{at}"}
    if family == "container":
        found["search"] = f"{base_url}/search/{at}"
        found["search_deep"] = f"{base_url}/search-deep/{at}"
        found["full"] = f"{base_url}/container/full/{at}"
    elif family in ("array", "sparse"):
        ndim = len(structure.shape) if isinstance(structure, ArrayStructure | SparseStructure) else 0
        found["full"] = f"{base_url}/array/full/{at}"
        found["block"] = f"{base_url}/array/block/{at}?block=" + ",".join(f"{{{n}}}" for n in range(ndim))
    elif family == "table":
        found["full"] = f"{base_url}/table/full/{at}"
        found["partition"] = f"{base_url}/table/partition/{at}?partition={{index}}"
    elif family == "awkward":
        found["full"] = f"{base_url}/awkward/full/{at}"
        found["buffers"] = f"{base_url}/awkward/buffers/{at}"
    elif family == "ragged":
        found["full"] = f"{base_url}/ragged/full/{at}"
        found["block"] = f"{base_url}/ragged/block/{at}?block={{0}}"
    return found


def resource(
    node: Node, path: tuple[str, ...], view: View, *, children: int | None, contents: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A node as a resource. `children` is the number a container has, if it is asked for; `contents` their resources by key."""
    wanted = view.fields
    attributes: dict[str, Any] = {
        "ancestors": list(path[:-1]),
        "structure_family": None,
        "specs": None,
        "metadata": None,
        "structure": None,
        "access_tags": None,
        "sorting": None,
        "data_sources": None,
    }
    if wanted is None or "structure_family" in wanted:
        attributes["structure_family"] = node.family
    if wanted is None or "specs" in wanted:
        attributes["specs"] = [{"name": s.name, "version": s.version} for s in node.specs]
    if wanted is None or "metadata" in wanted:
        attributes["metadata"] = _selected(node.metadata, view)
    if wanted is None or "structure" in wanted or "count" in wanted:
        is_container = node.family == "container"
        attributes["structure"] = (
            {"contents": contents, "count": children} if is_container else structure_to_wire(node.structure, node.family)
        )
    if wanted is None or "access_tags" in wanted:
        attributes["access_tags"] = list(node.access_tags)
    if (wanted is None or "sorting" in wanted) and node.family == "container":
        attributes["sorting"] = _INSERTION_ORDER
    if view.include_data_sources and (wanted is None or "data_sources" in wanted):
        attributes["data_sources"] = [data_source_to_wire(s) for s in node.data_sources]
    if view.version is not None:
        adapted(attributes, view.version)
    found = {"id": path[-1] if path else "", "attributes": attributes, "links": None, "meta": None}
    if not view.omit_links:
        bare = wanted is not None and not wanted
        found["links"] = links("" if bare else node.family, node.structure, path, view.base_url)
    return found


def column_resource(path: tuple[str, ...], structure: ArrayStructure | RaggedStructure, view: View) -> dict[str, Any]:
    """A column of a table, seen as an array: it has neither metadata nor tags of its own."""
    family: Family = "array" if isinstance(structure, ArrayStructure) else "ragged"
    column = Node("", path[-1], None, family, data_sources=(DataSource(family, structure, ""),))
    return _without_tags(resource(column, path, msgspec.structs.replace(view, include_data_sources=False), children=None))


def inner_resource(
    node: Node, path: tuple[str, ...], view: View, *, children: int | None, contents: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Something inside of a registered file: it has neither tags nor data sources of its own."""
    plain = msgspec.structs.replace(view, include_data_sources=False) if view.include_data_sources else view
    found = resource(node, path, plain, children=children, contents=contents)
    return _without_tags(found)


def create_reply(node: Node, path: tuple[str, ...], base_url: str, requested: tuple[str, ...] | None) -> dict[str, Any]:
    """The answer to a creation: never with a `structure`; tags only where they differ from what was `requested`."""
    reply: dict[str, Any] = {
        "id": node.key,
        "links": links(node.family, node.structure, path, base_url),
        "data_sources": [data_source_to_wire(s) for s in node.data_sources],
    }
    if requested is None or tuple(requested) != node.access_tags:
        reply["access_tags"] = list(node.access_tags)
    return reply


def _without_tags(found: dict[str, Any]) -> dict[str, Any]:
    if "access_tags" in found["attributes"]:
        found["attributes"]["access_tags"] = None
    return found


def _selected(metadata: dict[str, Any], view: View) -> Any:
    return metadata if view.select_metadata is None else {"selected": view.select_metadata(metadata)}
