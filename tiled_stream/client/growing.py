"""Columns that grow as rows come: numpy arrays whose room is doubled when it is full, so that a row costs the same at any length.

What must stay true: an array that was handed out is never changed; it is a view of what was there then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

from ..domain.errors import NotFound, NotSupported
from ..wire.tables import column_array
from .events import Ended, Event, Gap, TableData

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Columns", "Freshness", "GrowingArray"]

Array = numpy.ndarray[Any, Any]
Path = tuple[str, ...]

_FIRST_ROOM = 64


class GrowingArray:
    """An array that grows along its first axis. Its type widens when wider values come (longer texts, numbers with fractions)."""

    def __init__(self) -> None:
        self._room: Array | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def array(self) -> Array:
        """All values until now; read-only."""
        if self._room is None:
            return numpy.empty(0)
        view = self._room[: self._count]
        view.flags.writeable = False
        return view

    def extend(self, values: Array) -> None:
        """More values, of the shape of those before beyond the first axis; `NotSupported` otherwise."""
        if not len(values):
            return
        room = self._room
        if room is not None and room.shape[1:] != values.shape[1:]:
            raise NotSupported(f"A value of shape {values.shape[1:]} does not follow those of shape {room.shape[1:]}.")
        end = self._count + len(values)
        dtype = values.dtype if room is None else _wider(room.dtype, values.dtype)
        if room is None or dtype != room.dtype or end > len(room):
            fresh = numpy.empty((max(_FIRST_ROOM, end, 2 * self._count), *values.shape[1:]), dtype)
            if room is not None:
                fresh[: self._count] = room[: self._count]
            room = self._room = fresh
        room[self._count : end] = values
        self._count = end


def _wider(one: numpy.dtype[Any], other: numpy.dtype[Any]) -> numpy.dtype[Any]:
    try:
        return numpy.promote_types(one, other)
    except TypeError:
        raise NotSupported(f"Values of type {other} do not follow those of type {one}.") from None


class Columns:
    """The columns of one table by name, as `TableData` brought them.

    `names`: which, all if empty. `path`: the end of the table's path; the first table that has these columns if empty.
    `gaps` are the pieces that are missing; `left_out` the columns that have no form as an array.
    """

    def __init__(self, names: tuple[str, ...] = (), *, path: Path = ()) -> None:
        self._names = names
        self._wanted = path
        #: Of the table that is followed; None before its first rows.
        self.path: Path | None = None
        self.gaps: list[Gap] = []
        #: The table has ended: this is all of it.
        self.is_complete = False
        self.left_out: set[str] = set()
        #: By partition: one that is written anew begins again, the others stay.
        self._parts: dict[int, dict[str, GrowingArray]] = {}

    def __len__(self) -> int:
        return sum(max(map(len, part.values()), default=0) for part in self._parts.values())

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Array:
        arrays = [self._parts[n][name].array for n in sorted(self._parts) if name in self._parts[n]]
        if not arrays:
            if name in self._names and not self._parts:
                return numpy.empty(0)
            raise NotFound(f"There is no column {name!r}; there are {', '.join(self.names) or 'none yet'}.")
        return arrays[0] if len(arrays) == 1 else numpy.concatenate(arrays)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that there are."""
        return tuple(dict.fromkeys(name for part in self._parts.values() for name in part))

    def take(self, event: Event) -> bool:
        """Look at an event; whether it brought rows."""
        if isinstance(event, Gap) and event.path == self.path:
            self.gaps.append(event)
        if isinstance(event, Ended) and event.path == self.path:
            self.is_complete = True
        if not isinstance(event, TableData) or not self._is_mine(event):
            return False
        self.path = event.path
        if not event.append:
            if event.partition is None:
                self._parts.clear()
            else:
                self._parts.pop(event.partition, None)
        part = self._parts.setdefault(event.partition or 0, {})
        for name in self._names or event.table.column_names:
            self._extend(part, name, event.table)
        return True

    def _is_mine(self, event: TableData) -> bool:
        if self.path is not None:
            return event.path == self.path
        if self._wanted and event.path[-len(self._wanted) :] != self._wanted:
            return False
        return set(self._names) <= set(event.table.column_names)

    def _extend(self, part: dict[str, GrowingArray], name: str, table: pyarrow.Table) -> None:
        if name in self.left_out:
            return
        try:
            part.setdefault(name, GrowingArray()).extend(column_array(table.column(name)))
        except NotSupported:
            if name in self._names:
                raise
            part.pop(name, None)
            self.left_out.add(name)


class Freshness:
    """When to show what came: at once if the last time is long ago, else together with what comes until then."""

    def __init__(self, every: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._shown_at = float("-inf")
        self._has_more = False

    def told(self, has_more: bool) -> None:
        """Something came; whether it is to be shown."""
        self._has_more = self._has_more or has_more

    def wait(self) -> float | None:
        """How long to wait for more; None: until it comes."""
        return max(0.0, self._shown_at + self._every - self._clock()) if self._has_more else None

    def is_due(self) -> bool:
        """Whether to show it now."""
        if not self._has_more or self._clock() < self._shown_at + self._every:
            return False
        self._has_more = False
        self._shown_at = self._clock()
        return True

    def has_more(self) -> bool:
        """Something was not shown yet."""
        return self._has_more
