"""Which format is chosen."""

from __future__ import annotations

import pytest

from tiled_stream.domain.errors import NotAcceptable
from tiled_stream.wire.negotiate import ALIASES, BLUESKY_RUN, FORMATS, JSON_SEQ, choose, wants_msgpack

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
        ("array", None, "image/png, text/html;q=0.1, application/json", "text/html"),
        ("array", None, "text/*", "text/csv"),
        ("array", None, "image/*,*/*;q=0.8", RAW),
        ("array", "png,json", None, "application/json"),
        ("table", None, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("table", "arrow", None, ARROW),
        ("table", "feather", None, ARROW),
        ("table", "parquet", None, "application/x-parquet"),
        ("table", "jsonl", None, JSON_SEQ),
        ("table", "text/csv;header=absent", None, "text/csv;header=absent"),
        ("table", "text/csv; header=absent", None, "text/csv;header=absent"),
        ("table", None, "text/csv; charset=utf-8", "text/csv"),
        ("container", "json", None, "application/json"),
        (BLUESKY_RUN, "jsonl", None, JSON_SEQ),
        (BLUESKY_RUN, "application/json-seq", "*/*", JSON_SEQ),
    ],
)
def test_chosen(family: str, format_param: str | None, accept: str | None, expected: str) -> None:
    assert choose(family, format_param, accept) == expected


@pytest.mark.parametrize(
    ("family", "format_param", "accept"),
    [("array", "png", None), ("array", None, "image/png"), ("array", "nope", "*/*"), ("container", "application/x-hdf5", None)],
)
def test_refused_with_both_lists(family: str, format_param: str | None, accept: str | None) -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose(family, format_param, accept)
    assert (format_param or accept or "") in str(caught.value)
    assert all(media_type in str(caught.value) for media_type in FORMATS[family])


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
