"""What passes can be written again."""

from __future__ import annotations

import orjson
import pytest

from tiled_stream.domain.errors import Malformed
from tiled_stream.wire.client_json import MAX_DEPTH, check_depth, load, load_object


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_bounded(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    innermost = "1" if opening != "[" else ""
    deepest = opening * MAX_DEPTH + innermost + closing * MAX_DEPTH
    assert orjson.dumps([[[[load(deepest, "x")]]]])
    for levels in (MAX_DEPTH + 1, 500, 100_000):
        with pytest.raises(Malformed):
            load((opening * levels + innermost + closing * levels).encode(), "x")


def test_many_brackets_are_not_deep() -> None:
    assert load("[" + "[[]]," * 500 + "{}]", "x")[-1] == {}


def test_depth_of_a_value() -> None:
    value: list[object] = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    check_depth(value, "x")
    with pytest.raises(Malformed, match="The patched metadata is nested"):
        check_depth([value], "The patched metadata")
    check_depth(3, "x")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"null", b'"x"', b"NaN", b'{"a": NaN}', b"\xff", b'{"a": "\\ud800"}', b"{}x"]
)
def test_bodies_that_are_no_object(body: bytes) -> None:
    with pytest.raises(Malformed):
        load_object(body)
