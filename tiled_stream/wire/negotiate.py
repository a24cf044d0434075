"""Which format an answer has: `format=` beats `Accept`; the first supported entry wins; weights do not count.

What must stay true: formats of a node's specs come before those of its family, and where nothing is asked for, or a wildcard,
it is the default of the family. What is announced here is produced somewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..domain.errors import NotAcceptable

__all__ = [
    "ALIASES",
    "BLUESKY_RUN",
    "FORMATS",
    "HDF5",
    "JSON_SEQ",
    "NETCDF",
    "PNG",
    "TIFF",
    "XARRAY_DATASET",
    "XDI",
    "XDI_TEXT",
    "XLSX",
    "choose",
    "choose_kind",
    "wants_msgpack",
]

HDF5 = "application/x-hdf5"
JSON_SEQ = "application/json-seq"
NETCDF = "application/netcdf"
PNG = "image/png"
TIFF = "image/tiff"
XDI_TEXT = "application/x-xdi"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

#: Nodes with these specs have formats of their own: the documents of a run, a dataset as one table, X-ray spectra as text.
BLUESKY_RUN = "BlueskyRun"
XARRAY_DATASET = "xarray_dataset"
XDI = "xdi"

_ARROW = "application/vnd.apache.arrow.file"
_PARQUET = "application/x-parquet"
_JSON = "application/json"
_ZIP = "application/zip"
_SHEETS = ("text/csv", "text/x-comma-separated-values", "text/plain", "application/vnd.ms-excel", "text/html")
_HEADLESS = "text/csv;header=absent"

#: Media types by family or spec, the default of a family first.
FORMATS: dict[str, tuple[str, ...]] = {
    "array": ("application/octet-stream", _JSON, *_SHEETS, PNG, TIFF),
    "table": (_ARROW, _PARQUET, *_SHEETS, XLSX, _JSON, JSON_SEQ, HDF5),
    "container": (HDF5, _JSON),
    "awkward": (_ZIP, _JSON, _ARROW, _PARQUET),
    "ragged": (_JSON, _ZIP, _ARROW, _PARQUET),
    "sparse": (_ARROW, _PARQUET, *_SHEETS, XLSX, _JSON, HDF5),
    BLUESKY_RUN: (JSON_SEQ,),
    XARRAY_DATASET: (_ARROW, _PARQUET, *_SHEETS, XLSX, _JSON, HDF5, NETCDF),
    XDI: (XDI_TEXT,),
}
#: The family that a spec says something about; on any other it means nothing here.
_FAMILY_OF = {BLUESKY_RUN: "container", XARRAY_DATASET: "container", XDI: "table"}

_NAMES: dict[str, tuple[str, ...]] = {
    _ARROW: ("arrow", "feather"),
    _PARQUET: ("parquet",),
    _JSON: ("json",),
    JSON_SEQ: ("jsonl", "json-seq"),
    _ZIP: ("zip",),
    "text/csv": ("csv",),
    "text/plain": ("text", "txt"),
    "application/vnd.ms-excel": ("xls", "xlb", "xlm", "xla", "xlc", "xlt", "xlw"),
    "text/html": ("html", "htm", "shtml"),
    PNG: ("png",),
    TIFF: ("tif", "tiff"),
    XLSX: ("xlsx",),
    HDF5: ("h5", "hdf5"),
    NETCDF: ("nc",),
    XDI_TEXT: ("xdi",),
}

#: Short names of media types, as a client's file extension spells them.
ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    kind: {media_type: _NAMES[media_type] for media_type in media_types if media_type in _NAMES}
    for kind, media_types in FORMATS.items()
}

_BY_ALIAS = {
    kind: {alias: media_type for media_type, names in aliases.items() for alias in names} for kind, aliases in ALIASES.items()
}


def choose(family: str, format_param: str | None, accept: str | None, *, specs: Sequence[str] = ()) -> str:
    """The media type to answer in. `NotAcceptable` names what is supported and what was asked for."""
    return choose_kind(family, format_param, accept, specs=specs)[1]


def choose_kind(family: str, format_param: str | None, accept: str | None, *, specs: Sequence[str] = ()) -> tuple[str, str]:
    """The family or spec (of the names in `specs`) whose format it is, and the media type; as `choose`."""
    kinds = (*(spec for spec in specs if _FAMILY_OF.get(spec) == family), family)
    asked = format_param or accept
    if not asked:
        return _of(kinds, FORMATS[family][0])
    for entry in asked.split(","):
        found = _match(kinds, entry.strip())
        if found is not None:
            return found
    supported = dict.fromkeys(media_type for kind in kinds for media_type in FORMATS[kind])
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


def _of(kinds: Sequence[str], media_type: str) -> tuple[str, str]:
    return next((kind, media_type) for kind in kinds if media_type in FORMATS[kind])


def _match(kinds: Sequence[str], entry: str) -> tuple[str, str] | None:
    compact = entry.replace("; ", ";")
    name = compact.split(";")[0]
    if name in ("*/*", "*"):
        return _of(kinds, FORMATS[kinds[-1]][0])
    if name.endswith("/*"):
        some = (FORMATS[kinds[-1]][0], *(media_type for kind in kinds for media_type in FORMATS[kind]))
        return next((_of(kinds, media_type) for media_type in some if media_type.startswith(name[:-1])), None)
    for kind in kinds:
        if compact == _HEADLESS and name in FORMATS[kind] and kind != "array":
            return kind, _HEADLESS
        found = name if name in FORMATS[kind] else _BY_ALIAS[kind].get(name.lstrip("."))
        if found is not None:
            return kind, found
    return None
