"""The trees of a configuration file: one catalog, and what of it is served at which path.

`catalog` is one tree at `/`. Several `trees` are mounts of the same catalog: what they say of it must be the same, all but path,
`mount_node` and what is for the mounted container.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from .config_file import ConfigFile
from .config_keys import Key

__all__ = ["Given", "mounted"]

_TREE = re.compile(r"trees\[(\d+)\]")
#: What a tree says for itself; all else is about the catalog, of which there is one.
_OWN = ("trees[].tree", "trees[].path", "catalog.mount_node", "catalog.specs", "catalog.metadata")


class Given(NamedTuple):
    """A key of the file: what the list says of it, where it stands, and its value."""

    key: Key
    at: str
    value: Any


def mounted(file: ConfigFile, keys: Sequence[Given]) -> tuple[list[Given], tuple[dict[str, Any], ...], str]:
    """The keys without repetitions, the mounts (none: the root at /), and the key that they stand in."""
    trees: dict[int, dict[str, Given]] = {}
    for given in keys:
        number = _number(given)
        if number is not None:
            trees.setdefault(number, {})[given.key.path] = given
    first = min(trees, default=0)
    for number, tree in trees.items():
        _check_same(file, number, tree, trees[first])
    kept = [given for given in keys if (n := _number(given)) is None or _is_kept(given.key.path, trees[n], n == first)]
    mounts = tuple(_mount(tree) for tree in trees.values())
    place = "trees" if "trees" in file.values else "catalog.mount_node"
    return kept, () if mounts in ((), ({"path": "/", "node": "/"},)) else mounts, place


def _number(given: Given) -> int | None:
    """Which tree the key is of; None: of none."""
    found = _TREE.match(given.at)
    if found is None:
        return 0 if given.at.startswith("catalog.") else None
    return int(found[1])


def _is_kept(path: str, tree: Mapping[str, Given], is_first: bool) -> bool:
    """Specs and metadata are for the root of the catalog, unless the tree mounts another container."""
    if path in ("catalog.specs", "catalog.metadata"):
        return _node(tree) == "/"
    return is_first or path in _OWN


def _check_same(file: ConfigFile, number: int, tree: Mapping[str, Given], first: Mapping[str, Given]) -> None:
    for path in sorted((tree.keys() | first.keys()) - {*_OWN}, key=lambda path: (path != "catalog.uri", path)):
        ours, theirs = tree.get(path), first.get(path)
        if ours is None or theirs is None or ours.value != theirs.value:
            name = path.partition(".")[2]
            raise file.wrong(
                f"trees[{number}].args.{name}",
                "all trees of a server are parts of one catalog and say the same of it (mount_node tells which part); "
                "start a server for each other catalog.",
            )


def _mount(tree: Mapping[str, Given]) -> dict[str, Any]:
    path = tree["trees[].path"].value if "trees[].path" in tree else "/"
    mount: dict[str, Any] = {"path": "/" + path.strip("/"), "node": _node(tree)}
    if mount["node"] != "/":
        for name in ("specs", "metadata"):
            given = tree.get(f"catalog.{name}")
            if given is not None:
                plain = msgspec.to_builtins(given.value)
                mount[name] = list(plain) if name == "specs" else plain
    return mount


def _node(tree: Mapping[str, Given]) -> str:
    given = tree.get("catalog.mount_node")
    value = "/" if given is None else given.value
    return "/" + (value.strip("/") if isinstance(value, str) else "/".join(value))
