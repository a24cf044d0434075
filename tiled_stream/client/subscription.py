"""A subscription as its owner sees it."""

from __future__ import annotations

from .session import Followed

__all__ = ["Subscription"]


class Subscription:
    """`number` is what its events carry as `subscription`."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} of {'/'.join(self.path) or 'the root'} at {self.cursor}>"

    @property
    def number(self) -> int:
        """As in the events."""
        return self._followed.number

    @property
    def path(self) -> tuple[str, ...]:
        """The node that was asked for."""
        return self._followed.view.path

    @property
    def cursor(self) -> int | None:
        """The last sequence of that node that came, or is known not to come."""
        return self._followed.root.cursor

    @property
    def epoch(self) -> str | None:
        """Which life of its log this is; None if the server does not say."""
        return self._followed.epoch

    @property
    def is_over(self) -> bool:
        """Nothing more will come."""
        return self._followed.is_over
