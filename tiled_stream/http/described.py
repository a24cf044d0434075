"""What the query of each route may hold, for the API's description. Handlers parse their queries themselves (`params.py`):
building models for each request would cost more than most requests do. A test asks that every name a handler looks for stands
here.
"""

from __future__ import annotations

from typing import Any

__all__ = ["PARAMETERS", "described"]

_TEXT, _FLAG = {"type": "string"}, {"type": "boolean"}
_NUMBER = {"type": "integer", "minimum": 0}
_TEXTS = {"type": "array", "items": _TEXT}

#: Name → schema and meaning.
PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "block": (_TEXT, "Indices of a chunk, one an axis, with commas; empty for a scalar."),
    "column": (_TEXTS, "Columns of the table; all without it."),
    "counts": (_FLAG, "Tell how often each value occurs."),
    "drop_revision": (_FLAG, "Do not keep the state before."),
    "expected_shape": (_TEXT, "The shape that the client expects, or 'scalar'; refused if it is another one by now."),
    "extend": (_FLAG, "Grow the array to hold what is written."),
    "external_only": (_FLAG, "Refuse to delete data that this server manages (default)."),
    "field": (_TEXTS, "Children of the container, or columns; all without it."),
    "fields": (_TEXTS, "Attributes to be told; empty: none but the key; count: only how many."),
    "filename": (_TEXT, "The answer is to be saved under this name."),
    "first_eight": (_TEXT, "The first eight characters of an API key."),
    "fix": (_FLAG, "Correct what is declared wrongly."),
    "form_key": (_TEXTS, "Nodes of the form whose buffers are wanted."),
    "format": (_TEXT, "A media type, or its short name; comes before Accept."),
    "id": (_NUMBER, "The number of an asset."),
    "include_data_sources": (_FLAG, "Tell where the data are."),
    "limit": ({"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many, the newest."),
    "max_depth": (_NUMBER, "How deep to look."),
    "metadata": (_TEXTS, "Keys of metadata, with dots, whose values are wanted."),
    "number": ({"type": "integer", "minimum": 1}, "The number of a revision."),
    "offset": (_TEXT, "Where the patch begins, one integer an axis, with commas."),
    "omit_links": (_FLAG, "Tell no links."),
    "page[cursor]": (_NUMBER, "Continue after this, as 'next' of the page before says."),
    "page[limit]": ({"type": "integer", "minimum": 0, "maximum": 300}, "At most so many."),
    "page[offset]": (_NUMBER, "Skip so many."),
    "partition": (_NUMBER, "The number of a partition."),
    "patch_offset": (_TEXT, "Where the new region begins."),
    "patch_shape": (_TEXT, "The shape of the new region, or 'scalar'."),
    "persist": (_FLAG, "Keep what is written (default); if not, only subscribers see it."),
    "read": (_FLAG, "Try to read the data."),
    "recursive": (_FLAG, "Delete what is below, too."),
    "relative_path": (_TEXT, "A file within an asset that is a directory."),
    "role": ({"type": "string", "enum": ["user", "admin"]}, "What the principal may do."),
    "root_path": (_FLAG, "Tell the prefix under which the server is."),
    "select_metadata": (_TEXT, "A JMESPath expression that picks a part of the metadata."),
    "shape": (_TEXT, "The shape of the patch, or 'scalar'."),
    "slice": (_TEXT, "start:stop:step or an integer for each axis, with commas."),
    "sort": (_TEXTS, "Keys of metadata to sort by, '-' before them for descending; '-' alone: newest first."),
    "specs": (_FLAG, "Tell the lists of specs that occur."),
    "structure_families": (_FLAG, "Tell the families that occur."),
}

_PAGE = ("page[offset]", "page[limit]")
_VIEW = ("fields", "select_metadata", "include_data_sources", "omit_links", "max_depth")
_FOUND = (*_VIEW, *_PAGE, "page[cursor]", "sort")
_EXPORT = ("format", "filename")
_OF: dict[tuple[str, str], tuple[str, ...]] = {
    ("get", "metadata"): (*_VIEW, "root_path"),
    ("put", "metadata"): ("drop_revision",),
    ("patch", "metadata"): ("drop_revision",),
    ("delete", "metadata"): ("recursive", "external_only"),
    ("get", "search"): _FOUND,
    ("get", "search-deep"): _FOUND,
    ("get", "distinct"): ("metadata", "structure_families", "specs", "counts"),
    ("get", "revisions"): _PAGE,
    ("delete", "revisions"): ("number",),
    ("put", "data_source"): ("patch_shape", "patch_offset"),
    ("get", "asset/bytes"): ("id", "relative_path"),
    ("get", "asset/manifest"): ("id",),
    ("delete", "asset"): ("id", "external_only"),
    ("get", "array/full"): ("slice", "expected_shape", *_EXPORT),
    ("get", "array/block"): ("block", "slice", "expected_shape", *_EXPORT),
    ("put", "array/full"): ("persist",),
    ("put", "array/block"): ("block", "persist"),
    ("patch", "array/full"): ("offset", "shape", "extend", "persist"),
    ("get", "ragged/full"): ("slice", *_EXPORT),
    ("put", "ragged/full"): ("persist",),
    ("put", "ragged/block"): ("block", "persist"),
    ("patch", "ragged/full"): ("offset", "shape", "extend", "persist"),
    ("get", "awkward/full"): _EXPORT,
    ("get", "awkward/buffers"): ("form_key", "filename"),
    ("get", "table/full"): ("column", "field", *_EXPORT),
    ("post", "table/full"): _EXPORT,
    ("get", "table/partition"): ("partition", "column", "field", *_EXPORT),
    ("post", "table/partition"): ("partition", *_EXPORT),
    ("put", "table/partition"): ("partition",),
    ("patch", "table/partition"): ("partition",),
    ("get", "container/full"): ("field", *_EXPORT),
    ("post", "container/full"): _EXPORT,
    ("get", "node/full"): ("field", *_EXPORT),
    ("get", "webhooks/history/{id}"): ("limit",),
    ("get", "validate"): ("fix", "read"),
    ("post", "validate"): ("fix", "read"),
    ("delete", "auth/apikey"): ("first_eight",),
    ("get", "auth/principal"): _PAGE,
    ("post", "auth/principal"): ("role",),
    ("delete", "auth/principal/{principal}/apikey"): ("first_eight",),
}
_FILTERED = ("search", "search-deep", "distinct")


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the parameters of each operation. `filter[…]` has names that OpenAPI cannot spell; it is told in words."""
    for path, methods in schema.get("paths", {}).items():
        place = path.removeprefix("/api/v1/").removeprefix("/custom/").removesuffix("/{path}")
        for method, operation in methods.items():
            if not isinstance(operation, dict):
                continue
            given = operation.setdefault("parameters", [])
            known = {parameter["name"] for parameter in given}
            for name in _OF.get((method, place), ()):
                if name not in known:
                    kind, meaning = PARAMETERS[name]
                    given.append({"name": name, "in": "query", "required": False, "schema": kind, "description": meaning})
            if method == "get" and place in _FILTERED:
                operation["description"] = f"{operation.get('description', '')} Filters: filter[NAME][condition][FIELD]=VALUE."
    return schema
