"""What a subscription asks for: where to begin, how much of the tree, and how much of each message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import msgspec

from ..domain.errors import Malformed

__all__ = ["Thin", "View", "ViewOptions"]

Thin = Literal["latest", "minmax"]


class ViewOptions(TypedDict, total=False):
    """What may be said about a subscription beside its path.

    `start`: None, only what comes from now on (default); 0, everything that is kept; N, from sequence N. `subtree`: the nodes
    below it too. `columns`: of tables, only these. `max_hz`: at most so many updates a second of each node, put together as
    `thin` says: "latest", or "minmax", the extremes of each numeric column. `slice`: of arrays, a part of each update beyond its
    first axis ("::4,::4"). `payload`: False for headers only.
    """

    start: int | None
    subtree: bool
    columns: Sequence[str] | None
    max_hz: float | None
    thin: Thin | None
    slice: str | None
    payload: bool


class View(msgspec.Struct, frozen=True):
    """`path`: the node. The others as in `ViewOptions`. `Malformed` if they contradict themselves."""

    path: tuple[str, ...]
    start: int | None = None
    subtree: bool = False
    columns: tuple[str, ...] | None = None
    max_hz: float | None = None
    thin: Thin | None = None
    slice: str | None = None
    payload: bool = True

    def __post_init__(self) -> None:
        if self.start is not None and self.start < 0:
            raise Malformed(f"'start' is None, 0 or a sequence, not {self.start}.")
        if self.max_hz is not None and not self.max_hz > 0:
            raise Malformed(f"'max_hz' is more than 0, not {self.max_hz}.")
        if self.thin is not None and self.max_hz is None:
            raise Malformed("'thin' says how to keep to 'max_hz'; give both.")

    @classmethod
    def of(cls, path: tuple[str, ...], options: ViewOptions) -> View:
        """As a value."""
        given: dict[str, Any] = dict(options)
        if given.get("columns") is not None:
            given["columns"] = tuple(given["columns"])
        return cls(path, **given)

    @property
    def is_plain(self) -> bool:
        """Any server of the protocol can give it, by its socket for one node."""
        return self == View(self.path, start=self.start)

    def message(self, number: int, *, start: int | None, epoch: str | None, cursors: dict[str, int]) -> dict[str, Any]:
        """The request, from these positions on."""
        message: dict[str, Any] = {"type": "subscribe", "id": number, "path": list(self.path), "start": start}
        if epoch is not None:
            message["epoch"] = epoch
        if self.subtree:
            message["subtree"] = True
            if cursors:
                message["cursors"] = cursors
        if not self.payload:
            message["payload"] = False
        for name in ("columns", "max_hz", "thin", "slice"):
            value = getattr(self, name)
            if value is not None:
                message[name] = value
        return message
