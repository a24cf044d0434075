"""A process that applies one record after the other and prints each watermark, until it is killed.

python batch_writer.py arrays|parts|tables DIRECTORY FENCE
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from random import Random
from typing import Any

from tiled_stream.storage.file_tables import FileTables
from tiled_stream.storage.part_files import PartFiles
from tiled_stream.storage.table_formats import ArrowFormat
from tiled_stream.storage.zarr_arrays import ZarrArrays
from tiled_stream.testing.array_contract import ArrayStoreContract
from tiled_stream.testing.part_contract import PartModel, split_part
from tiled_stream.testing.table_history import TableHistory

RECORDS = 400


def store_of(kind: str, root: Path) -> Any:
    """The store of this kind."""
    if kind == "arrays":
        return ZarrArrays(root)
    return PartFiles(root, split=split_part) if kind == "parts" else FileTables(root, ArrowFormat())


def history(kind: str) -> Any:
    """The same history in each process."""
    random = Random(7)
    if kind == "arrays":
        model: Any = ArrayStoreContract().model(random)
    else:
        model = PartModel(random) if kind == "parts" else TableHistory(random)
    model.node = "ab" * 16
    for n in range(RECORDS):
        if n % 50 == 49:
            model.delete()
        elif kind == "arrays" and n % 50 > 5:
            model.append(extent=1 + n % 2) if n % 3 else model.write_region()
        else:
            model.step()
    return model


async def main(kind: str, root: Path, fence: int) -> None:
    """Continue from the stored watermark, for ever."""
    store, model = store_of(kind, root), history(kind)
    while True:
        (after,) = await store.watermarks([model.node])
        while after < RECORDS:
            (after,) = await store.apply([model.batch(after, after + 1, fence=fence)])
            print(after, flush=True)
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
