"""The directories below one root that a store has changed lately, one a node, each with its hold.

A hold is remembered for as long as the lease keeps its fence, so that a batch costs no more than its renames. What must stay
true: after an error nothing is remembered of that node, neither the hold nor what a store knows because it has the hold.
"""

from __future__ import annotations

import errno
import shutil
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from ..domain.events import Record
from ..domain.nodes import NodeId
from .fenced_directory import HeldDirectory, HoldLost, acquire, has_holds, stored_watermark, wait_a_moment
from .layout import array_directory
from .port import FENCED, ArrayBatch, PartBatch, TableBatch

__all__ = ["KNOWN", "TRIES", "Check", "NodeDirectories", "Remembered", "afterwards", "fresh_records"]

#: Raises `StorageMissing` if the root is not the directory that it should be.
Check = Callable[[], None]

#: Nodes of which holds, and what belongs to them, are remembered.
KNOWN = 4096
#: A batch is begun again so often when its hold is lost to a process with the same fence, or with its directory.
TRIES = 20

T = TypeVar("T")
B = TypeVar("B", ArrayBatch, PartBatch)


class NodeDirectories:
    """`check`: see `StorageRoot`; None for none. Only `check`, `place` and `watermarks` are for more than one thread."""

    def __init__(self, root: Path, check: Check | None) -> None:
        self._root = root
        self._check = check
        self._holds: OrderedDict[NodeId, HeldDirectory] = OrderedDict()

    def check(self) -> None:
        """`StorageMissing` if the root is not the bound directory."""
        if self._check is not None:
            self._check()

    def place(self, node: NodeId) -> Path:
        """The directory of a node."""
        return array_directory(self._root, node)

    def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """The watermarks that are stored in the directories of these nodes; 0 where there is none."""
        self.check()
        found = [stored_watermark(str(self.place(node))) for node in nodes]
        if 0 in found:
            self.check()
        return found

    def apply(self, write: Callable[[B, HeldDirectory], int], batches: Sequence[B]) -> list[int]:
        """Do `write` with each batch and the hold of its node. Answers what a store's `apply` answers."""
        self.check()
        answers = [self.change(b.node, b.fence, partial(write, b), is_due=partial(is_due, b)) for b in batches]
        self.check()  # nothing is confirmed that was written below an empty mount point
        return afterwards(batches, answers)

    def change(self, node: NodeId, fence: int, work: Callable[[HeldDirectory], int], *, is_due: Callable[[], bool]) -> int:
        """Do `work` with the hold of a node and return its answer, or that of `hold`."""
        for attempt in range(TRIES):
            hold: HeldDirectory | int = 0
            try:
                hold = self.hold(node, fence, is_due=is_due)
                return hold if isinstance(hold, int) else work(hold)
            except (HoldLost, FileNotFoundError) as error:
                # Lost to a successor, to another store with this fence, or with its directory; so may be a file that is missing.
                self.forget(node)
                if isinstance(error, FileNotFoundError) and not isinstance(hold, int) and hold.is_valid():
                    raise
                self.check()
                wait_a_moment(attempt)
            except BaseException:
                self.forget(node)
                raise
        raise self.contended(node)

    def hold(self, node: NodeId, fence: int, *, is_due: Callable[[], bool]) -> HeldDirectory | int:
        """The hold of a node; or what to answer to a batch that gets none: `FENCED`, or 0.

        `is_due`: does the batch change something although nothing is stored? If not, no directory is made for it.
        """
        known = self._holds.get(node)
        if known is not None and fence <= known.fence:
            self._holds.move_to_end(node)
            return known if fence == known.fence else FENCED
        place = self.place(node)
        if not has_holds(str(place)):
            if not is_due():
                return 0
            self._make(place)
        hold = acquire(str(place), fence)
        if hold is None:
            self.forget(node)
            return FENCED
        self._holds[node] = hold
        if len(self._holds) > KNOWN:
            self._holds.popitem(last=False)
        return hold

    def forget(self, node: NodeId) -> None:
        """The next batch of this node begins with a hold of its own."""
        self._holds.pop(node, None)

    def delete(self, node: NodeId) -> None:
        """Remove the directory of a node that is deleted for good."""
        self.forget(node)
        for _ in range(TRIES):
            try:
                shutil.rmtree(self.place(node))
            except FileNotFoundError:  # perhaps only of a file that its owner removed meanwhile
                if not self.place(node).exists():
                    return
        raise self.contended(node)

    def contended(self, node: NodeId) -> OSError:
        """The error after too many attempts."""
        return OSError(errno.EBUSY, "Other processes with the same fence change it again and again", str(self.place(node)))

    def _make(self, place: Path) -> None:
        if self._check is None:
            place.mkdir(parents=True, exist_ok=True)
            return
        for directory in (place.parent, place):  # not the root: below an empty mount point nothing must be made
            directory.mkdir(exist_ok=True)


def is_due(batch: ArrayBatch | PartBatch) -> bool:
    """Does this batch begin with nothing, and have something to say?"""
    return batch.after <= 0 and bool(batch.records)


def afterwards(batches: Sequence[ArrayBatch | PartBatch | TableBatch], answers: Sequence[int]) -> list[int]:
    """What a call answers: to each batch that was not fenced, the watermark of its node after all of them."""
    last = {b.node: answer for b, answer in zip(batches, answers, strict=True) if answer != FENCED}
    return [answer if answer == FENCED else last[b.node] for b, answer in zip(batches, answers, strict=True)]


def fresh_records(batch: ArrayBatch | PartBatch, hold: HeldDirectory) -> list[Record]:
    """The records that are to be applied; none of a batch that begins too late. Verifies the hold if there are none."""
    known = hold.watermark
    fresh = [r for r in batch.records if r.sequence > known] if batch.after <= known else []
    if not fresh:
        hold.verify()
    return fresh


class Remembered(Generic[T]):
    """What a store knows of some nodes as long as it keeps their holds."""

    def __init__(self) -> None:
        self._known: OrderedDict[NodeId, tuple[HeldDirectory, T]] = OrderedDict()

    def get(self, node: NodeId, hold: HeldDirectory) -> T | None:
        """What was put under this hold."""
        known = self._known.get(node)
        if known is None or known[0] is not hold:
            return None
        self._known.move_to_end(node)
        return known[1]

    def put(self, node: NodeId, hold: HeldDirectory, what: T) -> None:
        """Remember it."""
        self._known[node] = hold, what
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def pop(self, node: NodeId) -> None:
        """Forget it."""
        self._known.pop(node, None)
