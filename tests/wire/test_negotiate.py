"""Which format is chosen."""

from __future__ import annotations

import pytest

from tiled_stream.domain.errors import NotAcceptable
from tiled_stream.wire.negotiate import (
    ALIASES,
    BLUESKY_RUN,
    FORMATS,
    HDF5,
    JSON_SEQ,
    PNG,
    TIFF,
    XARRAY_DATASET,
    XDI,
    XDI_TEXT,
    XLSX,
    choose,
    choose_kind,
    wants_msgpack,
)

ARROW = "application/vnd.apache.arrow.file"
RAW = "application/octet-stream"


@pytest.mark.parametrize(
    ("family", "format_param", "accept", "expected"),
    [
        ("array", None, None, RAW),
        ("array", "", "", RAW),
        ("array", None, "*/*", RAW),
        ("array", None, "application/json", "application/json"),
        ("array", "csv", "application/json", "text/csv"),
        ("array", "text/csv", None, "text/csv"),
        ("array", None, "image/webp, text/html;q=0.1, image/png", "text/html"),
        ("array", None, "image/*", PNG),
        ("array", None, "application/*", RAW),
        ("array", "tif", None, TIFF),
        ("array", None, "text/*", "text/csv"),
        ("array", None, "video/*,*/*;q=0.8", RAW),
        ("array", "webp,json", None, "application/json"),
        ("table", None, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("table", "arrow", None, ARROW),
        ("table", "feather", None, ARROW),
        ("table", "parquet", None, "application/x-parquet"),
        ("table", "jsonl", None, JSON_SEQ),
        ("table", "text/csv;header=absent", None, "text/csv;header=absent"),
        ("table", "text/csv; header=absent", None, "text/csv;header=absent"),
        ("table", None, "text/csv; charset=utf-8", "text/csv"),
        ("container", "json", None, "application/json"),
        ("container", "h5", None, HDF5),
        ("container", None, "*/*", HDF5),
        ("table", "xlsx", None, XLSX),
    ],
)
def test_chosen(family: str, format_param: str | None, accept: str | None, expected: str) -> None:
    assert choose(family, format_param, accept) == expected


@pytest.mark.parametrize(
    ("family", "format_param", "accept"),
    [("array", "webp", None), ("array", None, "image/webp"), ("array", "nope", "*/*"), ("container", "csv", None)],
)
def test_refused_with_both_lists(family: str, format_param: str | None, accept: str | None) -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose(family, format_param, accept)
    assert (format_param or accept or "") in str(caught.value)
    assert all(media_type in str(caught.value) for media_type in FORMATS[family])


@pytest.mark.parametrize(
    ("family", "specs", "format_param", "accept", "expected"),
    [
        ("container", [BLUESKY_RUN], "jsonl", None, (BLUESKY_RUN, JSON_SEQ)),
        ("container", [BLUESKY_RUN], "application/json-seq", "*/*", (BLUESKY_RUN, JSON_SEQ)),
        ("container", [BLUESKY_RUN], "json", None, ("container", "application/json")),
        ("container", ["other", BLUESKY_RUN], None, "*/*", ("container", HDF5)),
        ("container", [XARRAY_DATASET], None, ARROW, (XARRAY_DATASET, ARROW)),
        ("container", [XARRAY_DATASET], "json", None, (XARRAY_DATASET, "application/json")),
        ("container", [XARRAY_DATASET], "text/csv;header=absent", None, (XARRAY_DATASET, "text/csv;header=absent")),
        ("container", [XARRAY_DATASET, BLUESKY_RUN], "jsonl", None, (BLUESKY_RUN, JSON_SEQ)),
        ("container", [XARRAY_DATASET], None, None, (XARRAY_DATASET, HDF5)),
        ("table", [XDI], "xdi", None, (XDI, XDI_TEXT)),
        ("table", [XDI], "arrow", None, ("table", ARROW)),
        ("table", [XDI], None, "application/*", ("table", ARROW)),
        ("table", ["container", "array"], None, "*/*", ("table", ARROW)),
    ],
)
def test_formats_of_specs_come_first(
    family: str, specs: list[str], format_param: str | None, accept: str | None, expected: tuple[str, str]
) -> None:
    assert choose_kind(family, format_param, accept, specs=specs) == expected


@pytest.mark.parametrize(
    ("family", "specs", "asked"),
    [("table", [], "xdi"), ("container", [XDI], "xdi"), ("array", [XARRAY_DATASET], "arrow"), ("container", ["array"], "png")],
)
def test_a_spec_counts_for_its_own_family_only(family: str, specs: list[str], asked: str) -> None:
    with pytest.raises(NotAcceptable):
        choose(family, asked, None, specs=specs)


def test_every_alias_leads_to_an_announced_type() -> None:
    assert ALIASES.keys() == FORMATS.keys()
    for family, aliases in ALIASES.items():
        for media_type, names in aliases.items():
            assert media_type in FORMATS[family]
            assert all(choose(family, name, None) == media_type for name in names)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("application/x-msgpack", True),
        ("application/json, application/x-msgpack", False),
        ("text/html, application/x-msgpack, application/json", True),
        ("application/x-msgpack;q=0.9", False),
    ],
)
def test_msgpack(accept: str | None, expected: bool) -> None:
    assert wants_msgpack(accept) is expected
