"""Which container of the catalog is served at which path.

Without mounts the root is at `/`. A mount leads from a path to a container; what lies above mounts are containers that
are in the configuration only (`is_above`): nothing can be created in them. Must stay true: no path is below another and no
container below another, so that each node has one path.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..domain.nodes import Node

__all__ = ["Mount", "Mounts"]

Path = tuple[str, ...]
#: What ids of containers begin with that are only in the configuration; ids of nodes are hexadecimal.
_ABOVE = "above:/"


class Mount(msgspec.Struct, frozen=True):
    """The container `node` of the catalog is served at `path`; both are keys from the root."""

    path: Path
    node: Path


class Mounts:
    """All mounts of a server, in the order in which they are listed. `ValueError` if one is below another."""

    def __init__(self, mounts: Sequence[Mount] = (Mount((), ()),)) -> None:
        self._mounts = tuple(mounts)
        for kind in ("path", "node"):
            places: list[Path] = [getattr(mount, kind) for mount in self._mounts]
            for n, place in enumerate(places):
                for other in places[:n]:
                    if place[: len(other)] == other or other[: len(place)] == place:
                        raise ValueError(f"/{'/'.join(other)} and /{'/'.join(place)}: one of them is, or lies in, the other")

    def mount_of(self, path: Path) -> Mount | None:
        """The mount that `path` is in."""
        for mount in self._mounts:
            if path[: len(mount.path)] == mount.path:
                return mount
        return None

    def served(self, node: Path) -> Path | None:
        """Where the node at these keys of the catalog is served; None: nowhere."""
        for mount in self._mounts:
            if node[: len(mount.node)] == mount.node:
                return mount.path + node[len(mount.node) :]
        return None

    def below(self, path: Path) -> list[str]:
        """Keys of what is right below `path`, if that is above mounts; else none."""
        depth = len(path)
        return list(dict.fromkeys(m.path[depth] for m in self._mounts if len(m.path) > depth and m.path[:depth] == path))

    def above(self, path: Path) -> Node | None:
        """The container at `path` if it is above mounts."""
        if not self.below(path):
            return None
        return Node(_ABOVE + "/".join(path), path[-1] if path else "", None, "container")
