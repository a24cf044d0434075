"""Filters and facts as values: what names fewest begins, what a fact is, where a prefix ends."""

from __future__ import annotations

import pytest

from tiled_stream.catalog.conditions import Fragment, Place, sourced
from tiled_stream.catalog.facts import Kind, element_at, facts_of, kind_of, value_at, words_of
from tiled_stream.catalog.filters import _following, compiled
from tiled_stream.catalog.sqlite_dialect import SqliteDialect
from tiled_stream.domain.errors import Malformed
from tiled_stream.domain.nodes import Spec
from tiled_stream.domain.search import Filter

CHILDREN = Place("nodes n", Fragment("n.parent = ?", (7,)), parent=7)
EQ = Filter("eq", 1, key="few")
RANGE = Filter("comparison", 1, key="some", operator="gt")
PRESENT = Filter("keypresent", True, key="most")


@pytest.mark.parametrize(
    ("filters", "begins_with"),
    [
        ((PRESENT, RANGE, EQ), "vfew"),
        ((PRESENT, RANGE), "vsome"),
        ((Filter("noteq", 1, key="other"), Filter("like", "a%", key="prefixed")), "vprefixed"),
        ((Filter("like", "%a", key="anywhere"), RANGE), "vsome"),
        ((Filter("specs", ["s"]), PRESENT), "specs"),
    ],
)
def test_what_names_fewest_begins(filters: tuple[Filter, ...], begins_with: str) -> None:
    source = sourced(compiled(filters, SqliteDialect()), CHILDREN)
    assert source.tables.startswith("facts f")
    assert source.condition.parameters[0] == begins_with
    assert source.row == "f.node"


@pytest.mark.parametrize("filters", [(), (Filter("lookup", "k"), EQ), (Filter("keypresent", False, key="k"),)])
def test_the_place_begins_where_nothing_is_better(filters: tuple[Filter, ...]) -> None:
    source = sourced(compiled(filters, SqliteDialect()), CHILDREN)
    assert (source.tables, source.row) == ("nodes n", "n.row")
    assert source.condition.sql.startswith("n.parent = ?")
    assert source.condition.parameters[0] == 7


def test_counting_one_condition_needs_no_nodes() -> None:
    alone = sourced(compiled([EQ], SqliteDialect()), CHILDREN)
    assert alone.facts is not None
    assert alone.facts.parameters == ("vfew", 1, 7)
    for more in ([EQ, PRESENT], [Filter("access_tags_filter", ["t", "u"])], [Filter("contains", 1, key="l")]):
        assert sourced(compiled(more, SqliteDialect()), CHILDREN).facts is None
    somewhere = Place("ancestry a", Fragment("a.ancestor = 3"), probe=Fragment("n.row > 3"))
    assert sourced(compiled([EQ], SqliteDialect()), somewhere).facts is None


def test_bounds_of_one_key_are_one_condition() -> None:
    bounds = [Filter("comparison", n, key="t", operator=o) for n, o in ((1, "ge"), (9, "lt"))]  # type: ignore[arg-type]
    assert len(compiled([*bounds, Filter("comparison", "a", key="t", operator="gt")], SqliteDialect())) == 2


def test_too_much_is_refused_before_the_engine_has_to() -> None:
    with pytest.raises(Malformed, match="at most 100 conditions"):
        compiled([EQ] * 101, SqliteDialect())
    with pytest.raises(Malformed, match="at most 20000 values"):
        sourced(compiled([Filter("in", list(range(20_001)), key="k")], SqliteDialect()), CHILDREN)


@pytest.mark.parametrize(
    ("prefix", "following"),
    [("ab", "ac"), ("\ud7ff", "\ue000"), ("a\U0010ffff", "b"), ("\U0010ffff", None), ("", None)],
)
def test_what_follows_a_prefix(prefix: str, following: str | None) -> None:
    assert _following(prefix) == following


def test_facts() -> None:
    metadata = {"a": {"b": [1, True], "c.d": 1}, "t": "x", "big": 2**70, "nan": float("nan"), "none": None}
    facts = facts_of(metadata, (Spec("s", "1"),), ("tag",))
    assert facts == [
        ("specs", Kind.TEXT, "s"),
        ("tags", Kind.TEXT, "tag"),
        (value_at("a"), Kind.OBJECT, -1),
        (value_at("a.b"), Kind.LIST, -1),
        (element_at("a.b"), Kind.NUMBER, 1),
        (element_at("a.b"), Kind.BOOLEAN, 1),
        (value_at("t"), Kind.TEXT, "x"),
        (value_at("big"), Kind.NUMBER, float(2**70)),
        (value_at("nan"), Kind.NULL, 0),
        (value_at("none"), Kind.NULL, 0),
    ]


def test_kinds_and_words() -> None:
    assert [kind_of([0] * n) for n in (0, 64, 65)] == [Kind.LIST, Kind.LIST, Kind.LONG_LIST]
    assert kind_of(float("inf")) is Kind.NULL
    assert words_of({"a": "Straße, straße!", "b": [{"c": "x_1"}], "d": 5}) == " strasse x_1 "
    assert words_of({"a": "--"}) == ""
