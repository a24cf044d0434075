"""Watermarks and fences of tables in PostgreSQL, inside the transaction that writes the rows.

What must stay true: from the moment when they are read until the transaction ends no other transaction can move them (I4,
I5). One round trip takes the lock and brings both numbers, one writes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from .layout import dataset_id
from .port import TableBatch
from .postgres_connect import Session
from .postgres_schema import WATERMARKS
from .sql_tables import Mark

__all__ = ["LOCK", "advance", "locked"]

LOCK = f"SELECT dataset, watermark, fence FROM {WATERMARKS} WHERE dataset = ANY($1::bigint[]) ORDER BY dataset FOR UPDATE"
_ADVANCE = f"UPDATE {WATERMARKS} SET watermark = v.w FROM unnest($1::bigint[], $2::bigint[]) v(d, w) WHERE dataset = v.d"
#: Only where a fence is new: while one worker keeps a node, it is not.
_ADVANCE_FENCES = (
    f"UPDATE {WATERMARKS} SET watermark = v.w, fence = v.f "
    "FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) v(d, w, f) WHERE dataset = v.d"
)


async def locked(db: Session, batches: Sequence[TableBatch]) -> dict[int, Mark]:
    """The stored watermarks and fences, which no other transaction can move until the transaction ends (I4, I5)."""
    if new := sorted({dataset_id(b.node) for b in batches if (b.records or b.fence) and b.after == 0}):
        await db.execute(
            f"INSERT INTO {WATERMARKS} (dataset, watermark) SELECT unnest($1::bigint[]), 0 ON CONFLICT DO NOTHING", new
        )
    found = await db.rows(LOCK, sorted({dataset_id(b.node) for b in batches}))
    return {dataset: Mark(watermark, fence) for dataset, watermark, fence in found}


async def advance(db: Session, marks: dict[int, Mark], stored: dict[int, Mark]) -> None:
    """Write the marks that have moved. `stored`: as `locked` has read them."""
    watermarks = [mark.watermark for mark in marks.values()]
    if all(dataset in stored and stored[dataset].fence == mark.fence for dataset, mark in marks.items()):
        await db.execute(_ADVANCE, list(marks), watermarks)
    else:
        await db.execute(_ADVANCE_FENCES, list(marks), watermarks, [mark.fence for mark in marks.values()])
