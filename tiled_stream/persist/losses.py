"""Records that are in no log any more, as the persister passes them: what stands in their place, and why they are lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..domain.events import Record, RecordLost

__all__ = ["FORGOTTEN", "NOT_RESTORED", "STORAGE_BEHIND", "lost_records", "lost_sequences", "ranges_of"]

FORGOTTEN = (
    "They left the log before the catalog had them. Was the catalog restored from an older backup, or the log emptied while no "
    "server was running?"
)
NOT_RESTORED = "The log lost them, and no server that was running had kept them."
STORAGE_BEHIND = "The storage does not have them, and the log has them no more. Was the storage restored from an older backup?"


def lost_records(sequences: Iterable[int]) -> tuple[Record, ...]:
    """What stands in the place of records that are lost; no store looks at it."""
    return tuple(Record(sequence, 0.0, RecordLost()) for sequence in sequences)


def lost_sequences(records: Sequence[Record]) -> list[int]:
    """Which of the records of a log are marked as lost."""
    return [record.sequence for record in records if isinstance(record.event, RecordLost)]


def ranges_of(sequences: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending sequences as ranges, first and last."""
    ranges: list[tuple[int, int]] = []
    for sequence in sequences:
        if ranges and ranges[-1][1] == sequence - 1:
            ranges[-1] = (ranges[-1][0], sequence)
        else:
            ranges.append((sequence, sequence))
    return ranges
