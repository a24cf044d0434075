"""Failed logins, counted so that passwords cannot be tried out quickly.

An attempt counts from its beginning, or many at once would all pass before the first has failed. Two bounds: a narrow one for a
name from an address, so that one's own mistakes lock out nobody else, and a wide one for the address, which may be a proxy's.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from ..domain.errors import TooOften

__all__ = ["OF_ADDRESS", "OF_NAME", "SECONDS", "Failures"]

#: So many failures within `SECONDS`: for one name from one address, and for an address whatever the names.
OF_NAME, OF_ADDRESS, SECONDS = 10, 100, 60.0
#: Places that are remembered; those that were tried least lately are forgotten first.
_MAX_PLACES = 10_000

Place = tuple[str, ...]


class Failures:
    """In memory of one process; with several processes each allows as much."""

    def __init__(self) -> None:
        self._times: OrderedDict[Place, deque[float]] = OrderedDict()

    def begin(self, address: str, name: str, *, now: float) -> None:
        """An attempt begins, and counts as failed until `forgive`. `TooOften` if there were too many."""
        places = ((address,), (address, name))
        for place, limit in zip(places, (OF_ADDRESS, OF_NAME), strict=True):
            times = self._recent(place, now)
            if len(times) >= limit:
                wait = times[0] + SECONDS - now
                raise TooOften("Too many failed logins; wait a moment.", retry_after=wait)
        for place in places:
            self._times.setdefault(place, deque()).append(now)
            self._times.move_to_end(place)
        while len(self._times) > _MAX_PLACES:
            self._times.popitem(last=False)

    def forgive(self, address: str, name: str, *, began: float) -> None:
        """The attempt that began then was none to be counted. What failed before still counts."""
        for place in ((address,), (address, name)):
            times = self._times.get(place)
            if times is None:
                continue
            if began in times:
                times.remove(began)
            if not times:
                del self._times[place]

    def _recent(self, place: Place, now: float) -> deque[float]:
        times = self._times.get(place, deque())
        while times and times[0] <= now - SECONDS:
            times.popleft()
        return times
