"""Filters and orders from query strings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.domain.errors import Malformed, Refused, Unsatisfiable
from tiled_stream.domain.search import FILTERS, Filter, SortKey
from tiled_stream.wire.queries import parse_filters, parse_sort


def pairs(name: str, **fields: str) -> list[tuple[str, str]]:
    return [(f"filter[{name}][condition][{field}]", value) for field, value in fields.items()]


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("fulltext", {"text": "big world"}, Filter("fulltext", "big world")),
        ("lookup", {"key": "k 1"}, Filter("lookup", "k 1")),
        ("keys_filter", {"keys": '["a","b"]'}, Filter("keys_filter", ["a", "b"])),
        ("eq", {"key": "a.b", "value": '"red"'}, Filter("eq", "red", key="a.b")),
        ("eq", {"key": "n", "value": "1.0"}, Filter("eq", 1.0, key="n")),
        ("eq", {"key": "n", "value": "null"}, Filter("eq", None, key="n")),
        ("eq", {"key": "n", "value": '{"x":[1]}'}, Filter("eq", {"x": [1]}, key="n")),
        ("noteq", {"key": "b", "value": "true"}, Filter("noteq", True, key="b")),
        ("comparison", {"operator": "ge", "key": "n", "value": "1"}, Filter("comparison", 1, key="n", operator="ge")),
        ("comparison", {"operator": "lt", "key": "n", "value": '"b"'}, Filter("comparison", "b", key="n", operator="lt")),
        ("contains", {"key": "l", "value": "1"}, Filter("contains", 1, key="l")),
        ("in", {"key": "c", "value": "[1,null]"}, Filter("in", [1, None], key="c")),
        ("in", {"key": "c", "value": '"red"'}, Filter("in", "red", key="c")),
        ("notin", {"key": "c", "value": "[]"}, Filter("notin", [], key="c")),
        ("keypresent", {"key": "c", "exists": "true"}, Filter("keypresent", True, key="c")),
        ("keypresent", {"key": "c", "exists": "False"}, Filter("keypresent", False, key="c")),
        ("keypresent", {"key": "c", "exists": "0"}, Filter("keypresent", False, key="c")),
        ("like", {"key": "start.uid", "pattern": '"df001f%"'}, Filter("like", "df001f%", key="start.uid")),
        ("specs", {"include": '["A"]', "exclude": "[]"}, Filter("specs", ["A"])),
        ("specs", {"include": "[]", "exclude": '["B"]'}, Filter("specs", [], exclude=("B",))),
        ("access_tags_filter", {"tags": '["t"]'}, Filter("access_tags_filter", ["t"])),
        ("structure_family", {"value": "array"}, Filter("structure_family", "array")),
    ],
)
def test_every_filter(name: str, fields: dict[str, str], expected: Filter) -> None:
    assert parse_filters(pairs(name, **fields)) == (expected,)
    assert type(parse_filters(pairs(name, **fields))[0].value) is type(expected.value)


def test_all_filters_were_tried() -> None:
    """But one, which is announced and then refused, as catalogs in SQL do."""
    tried = {m for m in FILTERS if m != "regex"}
    marks = test_every_filter.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == tried


def test_conditions_of_one_name_pair_by_position() -> None:
    query = [
        ("page[limit]", "5"),
        *(("filter[comparison][condition][operator]", o) for o in ("ge", "lt")),
        *(("filter[comparison][condition][key]", "start.scan_id") for _ in range(2)),
        *(("filter[comparison][condition][value]", v) for v in ("1", "9")),
        *pairs("lookup", key="a"),
        ("fields", ""),
    ]
    assert parse_filters(query) == (
        Filter("comparison", 1, key="start.scan_id", operator="ge"),
        Filter("comparison", 9, key="start.scan_id", operator="lt"),
        Filter("lookup", "a"),
    )


def test_no_filters() -> None:
    assert parse_filters([("fields", "count"), ("sort", "-")]) == ()


@pytest.mark.parametrize(
    "query",
    [
        [("filter[eq][condition][nope]", "x")],
        pairs("eq", key="a"),
        pairs("eq", value="1"),
        pairs("specs", include="[]"),
        pairs("keypresent", key="a"),
        pairs("comparison", key="a", value="1"),
        [*pairs("eq", key="a", value="1"), *pairs("eq", key="b")],
        pairs("eq", key="a", value="red"),
        pairs("eq", key="a", value=""),
        pairs("eq", key="a", value="[" * 300 + "]" * 300),
        pairs("comparison", operator="eq", key="a", value="1"),
        pairs("comparison", operator="lt", key="a", value="[1]"),
        pairs("comparison", operator="lt", key="a", value="null"),
        pairs("like", key="a", pattern="1"),
        pairs("like", key="a", pattern="raw%"),
        pairs("keypresent", key="a", exists="maybe"),
        pairs("keypresent", key="a", exists="2"),
        pairs("keypresent", key="a", exists="[]"),
        pairs("specs", include='"A"', exclude="[]"),
        pairs("specs", include="[1]", exclude="[]"),
        pairs("keys_filter", keys='"a"'),
        pairs("access_tags_filter", tags="{}"),
        pairs("structure_family", value="composite"),
    ],
)
def test_what_is_not_understood_is_refused(query: list[tuple[str, str]]) -> None:
    with pytest.raises(Malformed):
        parse_filters(query)


@pytest.mark.parametrize(
    "name",
    ["filter[nope][condition][key]", "filter[eq]", "filter[eq][condition]", "filter[eq][condition][key][x]", "filter[]"],
)
def test_unknown_filters_are_refused(name: str) -> None:
    with pytest.raises(Unsatisfiable, match="no filter"):
        parse_filters([(name, "x")])


@pytest.mark.parametrize("fields", [{"key": "a", "pattern": "x.*"}, {"key": "a", "pattern": "x", "case_sensitive": "true"}])
def test_regular_expressions_name_their_query(fields: dict[str, str]) -> None:
    with pytest.raises(Unsatisfiable, match="Regex"):
        parse_filters(pairs("regex", **fields))


FIELD = st.sampled_from(["key", "value", "text", "operator", "include", "exclude", "exists", "pattern", "keys", "tags"])
VALUE = st.sampled_from(["1", '"a"', "[]", "null", "x", "", "{}", "true", "lt", "array"])


@given(st.lists(st.tuples(st.sampled_from(FILTERS), FIELD, VALUE), max_size=6))
def test_any_query_is_understood_or_refused(query: list[tuple[str, str, str]]) -> None:
    try:
        found = parse_filters([(f"filter[{name}][condition][{field}]", value) for name, field, value in query])
    except Refused:
        return
    assert {f.name for f in found} == {name for name, _, _ in query}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ()),
        ([""], (SortKey(""),)),
        (["-"], (SortKey("", True),)),
        (["key"], (SortKey("key"),)),
        (["+key"], (SortKey("key"),)),
        (["-metadata.a.b"], (SortKey("a.b", True),)),
        (["id"], (SortKey("id"),)),
        (["a", "-b", "-"], (SortKey("a"), SortKey("b", True), SortKey("", True))),
    ],
)
def test_orders(values: list[str], expected: Any) -> None:
    assert parse_sort(values) == expected


@pytest.mark.parametrize("value", ["a b", "a;b", "é", "--a", "a'", "a\n", "a,b", "[a]"])
def test_characters_that_no_order_has(value: str) -> None:
    with pytest.raises(Malformed):
        parse_sort([value])


@pytest.mark.parametrize("values", [["a", "-a"], ["a", "metadata.a"], ["", "a"], ["-", ""]])
def test_orders_that_contradict_themselves(values: list[str]) -> None:
    with pytest.raises(Unsatisfiable):
        parse_sort(values)
