"""JSON bodies of requests as commands.

What must stay true: every fault is a `Refused` that names the key; nothing doubtful gets further. Keys that the protocol does not
know are ignored, except inside a data source, where a misspelt one would lose data in silence.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..domain.commands import CreateChild, NewDataSource, PatchMetadata, ReplaceMetadata, UpdateDataSource
from ..domain.decide import check_specs
from ..domain.errors import Malformed, NotAcceptable, Unsatisfiable
from ..domain.nodes import Asset, Spec
from ..domain.slices import parse_ints, parse_shape
from .client_json import load_object
from .structures import structure_from_wire

__all__ = ["parse_create", "parse_data_source", "parse_json", "parse_patch", "parse_replace", "told_mimetypes"]

_FAMILIES = ("array", "awkward", "bytes", "container", "ragged", "sparse", "table")
_MANAGEMENT = ("external", "immutable", "locked", "writable")
_SOURCE_KEYS = {"structure_family", "structure", "id", "mimetype", "parameters", "properties", "assets", "management"}
_PATCH_KINDS = {"application/json-patch+json": "json-patch", "application/merge-patch+json": "merge-patch"}
MAX_KEY_BYTES = 1024


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object; the Content-Type does not matter."""
    return load_object(body)


def parse_create(body: bytes, registered: bool) -> CreateChild:
    """POST metadata, POST register."""
    value = parse_json(body)
    family = value.get("structure_family")
    if family not in _FAMILIES:
        raise Malformed(f"'structure_family' must be one of {', '.join(_FAMILIES)}, not {family!r}.")
    sources = tuple(_data_source(v, family) for v in _list(value, "data_sources"))
    if family != "container" and len(sources) != 1:
        raise Malformed(f"A node of family {family!r} needs exactly one entry in 'data_sources', not {len(sources)}.")
    return CreateChild(
        key=_key(value.get("id")),
        family=family,
        metadata=_object(value, "metadata"),
        specs=() if value.get("specs") is None else _specs(value["specs"]),
        access_tags=_tags(value),
        data_sources=sources,
        registered=registered,
    )


def told_mimetypes(body: bytes) -> list[str]:
    """The mimetypes of the data sources of a creation, before anything else in it is checked."""
    sources = parse_json(body).get("data_sources")
    told = [v.get("mimetype") for v in sources if isinstance(v, dict)] if isinstance(sources, list) else []
    return [mimetype for mimetype in told if isinstance(mimetype, str)]


def parse_replace(body: bytes, drop_revision: bool) -> ReplaceMetadata:
    """PUT metadata: null or absent leaves a part as it is."""
    value = parse_json(body)
    return ReplaceMetadata(
        metadata=None if value.get("metadata") is None else _object(value, "metadata"),
        specs=None if value.get("specs") is None else _specs(value["specs"]),
        access_tags=_tags(value),
        drop_revision=drop_revision,
    )


def parse_patch(body: bytes, drop_revision: bool) -> PatchMetadata:
    """PATCH metadata: `content-type` and `specs` must be there."""
    value = parse_json(body)
    for key in ("content-type", "specs"):
        if key not in value:
            raise Malformed(f"The body of a patch needs the key {key!r}.")
    kind = _PATCH_KINDS.get(str(value["content-type"]))
    if kind is None:
        raise NotAcceptable(f"'content-type' must be one of {', '.join(_PATCH_KINDS)}, not {value['content-type']!r}.")
    return PatchMetadata(
        kind="json-patch" if kind == "json-patch" else "merge-patch",
        metadata=value.get("metadata"),
        specs=value["specs"],
        access_tags=value.get("access_tags"),
        drop_revision=drop_revision,
    )


def parse_data_source(body: bytes, patch_shape: str | None, patch_offset: str | None) -> UpdateDataSource:
    """PUT data_source: `patch_shape` and `patch_offset` come together or not at all."""
    if (patch_shape is None) != (patch_offset is None):
        raise Unsatisfiable("Give both 'patch_shape' and 'patch_offset', or neither.")
    value = parse_json(body).get("data_source")
    if not isinstance(value, dict):
        raise Malformed("The body needs an object under 'data_source'.")
    source = _data_source(value, str(value.get("structure_family")))
    if source.id is None:
        raise Malformed("'data_source.id' must be the integer that the creation answered.")
    shape = None if patch_shape is None else parse_shape(patch_shape)
    offset = None if patch_offset is None else parse_ints(patch_offset)
    return UpdateDataSource(source, offset, shape)


def _data_source(value: Any, family: str) -> NewDataSource:
    if not isinstance(value, dict):
        raise Malformed("'data_sources' must hold objects.")
    unknown = value.keys() - _SOURCE_KEYS
    if unknown:
        raise Malformed(f"A data source has no key {sorted(unknown)[0]!r}; known are {', '.join(sorted(_SOURCE_KEYS))}.")
    if value.get("structure_family") != family:
        raise Malformed(f"The data source is of family {value.get('structure_family')!r}, its node of {family!r}.")
    management: Any = "writable" if value.get("management") is None else value["management"]
    if management not in _MANAGEMENT:
        raise Malformed(f"'management' must be one of {', '.join(_MANAGEMENT)}, not {management!r}.")
    mimetype = value.get("mimetype")
    if mimetype is not None and not isinstance(mimetype, str):
        raise Malformed("'mimetype' must be a text or null.")
    return NewDataSource(
        structure_family=_family(family),
        structure=structure_from_wire(family, value.get("structure"), is_external=management == "external"),
        mimetype=mimetype,
        parameters=_object(value, "parameters"),
        properties=_object(value, "properties"),
        assets=_assets(_list(value, "assets")),
        management=management,
        id=_source_id(value.get("id")),
    )


def _source_id(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise Malformed(f"The 'id' of a data source is an integer or null, not {value!r}.")
    return value


def _assets(values: list[Any]) -> tuple[Asset, ...]:
    """A reader's argument takes one value (`num` null) or a list of them (0, 1, 2 …), never both, and no place twice."""
    try:
        assets = msgspec.convert(values, tuple[Asset, ...])
    except msgspec.ValidationError as error:
        raise Malformed(f"'assets' must be a list of objects with 'data_uri', 'is_directory' and 'parameter': {error}") from None
    named = [a for a in assets if a.parameter is not None]  # the others are no arguments: what the files refer to
    places = {(a.parameter, a.num) for a in named}
    single = {a.parameter for a in named if a.num is None}
    if len(places) < len(named) or any(a.parameter in single and a.num is not None for a in named):
        raise Malformed("Two 'assets' stand at the same place of one 'parameter'; number them 0, 1, 2 … in 'num'.")
    if any(a.num is not None and a.num < 0 for a in assets):
        raise Malformed("The 'num' of an asset is its place in a list: 0, 1, 2 …")
    return assets


def _key(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise Malformed("'id' must be a text or null.")
    if "/" in value:
        raise Malformed(f"The key {value!r} holds a '/'; nodes are addressed by paths, so no key can.")
    if value in (".", ".."):
        raise Malformed(f"The key {value!r} means something else in a path; choose another.")
    if len(value.encode()) > MAX_KEY_BYTES or "\x00" in value:
        raise Malformed(f"A key has at most {MAX_KEY_BYTES} bytes and no NUL.")
    return value


def _family(value: str) -> Any:
    if value not in _FAMILIES:
        raise Malformed(f"'structure_family' must be one of {', '.join(_FAMILIES)}, not {value!r}.")
    return value


def _specs(value: Any) -> tuple[Spec, ...]:
    try:
        specs = msgspec.convert(value, tuple[Spec, ...])
    except msgspec.ValidationError as error:
        raise Malformed(f"'specs' must be a list of {{name, version}}: {error}") from None
    check_specs(specs)
    return specs


def _tags(value: dict[str, Any]) -> tuple[str, ...] | None:
    tags = value.get("access_tags")
    if tags is None:  # the name it had before
        tags = _object(value, "access_blob").get("tags")
    if tags is None:
        return None
    if not isinstance(tags, list) or not all(isinstance(t, str) for t in tags):
        raise Malformed("'access_tags' must be a list of texts or null.")
    return tuple(tags)


def _object(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Malformed(f"{key!r} must be an object, not {type(found).__name__}.")
    return found


def _list(value: dict[str, Any], key: str) -> list[Any]:
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Malformed(f"{key!r} must be a list, not {type(found).__name__}.")
    return found
