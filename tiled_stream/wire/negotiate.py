"""Which format an answer has: `format=` beats `Accept`; the first supported entry wins; a wildcard is the default."""

from __future__ import annotations

from ..domain.errors import NotAcceptable

__all__ = ["ALIASES", "BLUESKY_RUN", "FORMATS", "JSON_SEQ", "choose", "wants_msgpack"]

JSON_SEQ = "application/json-seq"
#: Nodes with this spec have a format of their own: the documents of the run.
BLUESKY_RUN = "BlueskyRun"

_ARROW = "application/vnd.apache.arrow.file"
_SHEETS = ("text/csv", "text/x-comma-separated-values", "text/plain", "application/vnd.ms-excel", "text/html")

#: Media types by family or spec, the default first.
FORMATS: dict[str, tuple[str, ...]] = {
    "array": ("application/octet-stream", "application/json", *_SHEETS),
    "table": (_ARROW, "application/x-parquet", *_SHEETS, "application/json", JSON_SEQ),
    "container": ("application/json",),
    BLUESKY_RUN: (JSON_SEQ, "application/json"),
    "awkward": ("application/zip", "application/json", _ARROW, "application/x-parquet"),
    "ragged": ("application/json", "application/zip", _ARROW, "application/x-parquet"),
    "sparse": (_ARROW, "application/x-parquet", *_SHEETS, "application/json"),
}

_SHEET_ALIASES: dict[str, tuple[str, ...]] = {
    "text/csv": ("csv",),
    "text/plain": ("text", "txt"),
    "application/vnd.ms-excel": ("xls",),
    "text/html": ("html", "htm"),
    "application/json": ("json",),
}

_PART_ALIASES: dict[str, tuple[str, ...]] = {
    "application/json": ("json",),
    "application/zip": ("zip",),
    _ARROW: ("arrow", "feather"),
    "application/x-parquet": ("parquet",),
}
#: Short names of media types, as a client's file extension spells them.
ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "array": _SHEET_ALIASES,
    "table": {
        **_SHEET_ALIASES,
        _ARROW: ("arrow", "feather"),
        "application/x-parquet": ("parquet",),
        JSON_SEQ: ("jsonl", "json-seq"),
    },
    "container": {"application/json": ("json",)},
    BLUESKY_RUN: {JSON_SEQ: ("jsonl", "json-seq"), "application/json": ("json",)},
    "awkward": _PART_ALIASES,
    "ragged": _PART_ALIASES,
    "sparse": {**_SHEET_ALIASES, _ARROW: ("arrow", "feather"), "application/x-parquet": ("parquet",)},
}

_BY_ALIAS = {
    family: {alias: media_type for media_type, names in aliases.items() for alias in names} for family, aliases in ALIASES.items()
}


def choose(family: str, format_param: str | None, accept: str | None) -> str:
    """The media type to answer in. `NotAcceptable` names what is supported and what was asked for."""
    supported = FORMATS[family]
    asked = format_param or accept
    if not asked:
        return supported[0]
    for entry in asked.split(","):
        found = _match(family, entry.strip())
        if found is not None:
            return found
    raise NotAcceptable(f"None of the media types requested ({asked}) is supported here. Supported: {', '.join(supported)}.")


def wants_msgpack(accept: str | None) -> bool:
    """JSON unless msgpack is the first of the two in `Accept`."""
    for entry in (accept or "").split(","):
        token = entry.strip()
        if token == "application/x-msgpack":
            return True
        if token in ("application/json", "*/*"):
            return False
    return False


def _match(family: str, entry: str) -> str | None:
    supported = FORMATS[family]
    compact = entry.replace("; ", ";")
    if compact == "text/csv;header=absent" and family == "table":
        return compact
    name = compact.split(";")[0]
    if name in ("*/*", "*"):
        return supported[0]
    if name in supported:
        return name
    if name.endswith("/*"):
        return next((m for m in supported if m.startswith(name[:-1])), None)
    return _BY_ALIAS[family].get(name.lstrip("."))
