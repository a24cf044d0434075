"""A node has one path, and a path leads to one node or to none; the oracle is a tree of dicts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.nodes.mounts import Mount, Mounts

PATHS = st.lists(st.sampled_from("abc"), max_size=3).map(tuple)


def planted(places: list[tuple[str, ...]]) -> dict[str, Any] | None:
    """Places as leaves of a tree, each the number of its place; None if they are in each other's way."""
    tree: dict[str, Any] = {"": {}}
    for number, place in enumerate(places):
        at = tree[""]
        if not place:
            if at or number:
                return None
            tree[""] = number
            continue
        for key in place[:-1]:
            if not isinstance(at, dict):
                return None
            at = at.setdefault(key, {})
        if not isinstance(at, dict) or place[-1] in at:
            return None
        at[place[-1]] = number
    return tree


@given(st.lists(st.tuples(PATHS, PATHS), min_size=1, max_size=4), PATHS)
def test_a_path_leads_where_the_tree_says(pairs: list[tuple[Any, Any]], path: tuple[str, ...]) -> None:
    tree = planted([p for p, _ in pairs])
    if tree is None or planted([n for _, n in pairs]) is None:
        with pytest.raises(ValueError, match="lies in"):
            Mounts([Mount(*pair) for pair in pairs])
        return
    mounts = Mounts([Mount(*pair) for pair in pairs])
    at: Any = tree[""]
    for key in path:
        at = at.get(key) if isinstance(at, dict) else at
    found = mounts.mount_of(path)
    assert (None if found is None else (found.path, found.node)) == (pairs[at] if isinstance(at, int) else None)
    assert mounts.below(path) == (list(at) if isinstance(at, dict) else [])
    above = mounts.above(path)
    assert (above is not None) == isinstance(at, dict)
    assert above is None or (above.family, above.key) == ("container", path[-1] if path else "")


def test_without_mounts_the_root_is_at_the_root() -> None:
    assert Mounts().mount_of(("a", "b")) == Mounts().mount_of(()) == Mount((), ())
    assert Mounts().above(()) is None
