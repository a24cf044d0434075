"""Parts of awkward, ragged and sparse arrays as files: the last word about each counts, and only what is kept is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiled_stream.domain.errors import TooLarge, Unavailable, UnsupportedType
from tiled_stream.domain.events import PartWritten, StreamEnded
from tiled_stream.domain.parts import FLOAT64
from tiled_stream.domain.structures import AwkwardStructure, RaggedStructure, SparseStructure
from tiled_stream.storage.layout import array_directory
from tiled_stream.storage.part_files import PartFiles
from tiled_stream.storage.port import PartBatch
from tiled_stream.testing.factories import new_id, record

RAGGED = RaggedStructure(FLOAT64, (2, None), 0, ((1, 1), None))


def split(event: PartWritten, body: bytes) -> dict[str, bytes]:
    """One file for a block, two for the whole."""
    return {f"block-{event.block[0]}": body} if event.block is not None else {"block-0": body[:1], "block-1": body[1:]}


def written(sequence: int, body: bytes, block: int | None = None, *, persist: bool = True) -> object:
    event = PartWritten((2, None), RAGGED, block=None if block is None else (block,), persist=persist)
    return record(sequence, event, body)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PartFiles]:
    store = PartFiles(tmp_path, split=split)
    await store.open()
    yield store
    await store.close()
    await store.close()


async def test_the_last_word_about_each_part_counts(store: PartFiles) -> None:
    node = new_id()
    records = (
        written(1, b"ab"),
        written(2, b"c", 1),
        written(3, b"no", 0, persist=False),
        record(4, StreamEnded()),
        written(5, b"d", 0),
    )
    for batch in (records[:2], records[1:], records):  # some come again, as after a crash
        await store.apply([PartBatch(node, batch)])
    assert await store.read(node, ["block-0", "block-1", "block-2"], limit=100) == {"block-0": b"d", "block-1": b"c"}


async def test_what_was_never_written_is_not_there(store: PartFiles) -> None:
    assert await store.read(new_id(), ["block-0"], limit=100) == {}


async def test_memory_is_bounded(store: PartFiles) -> None:
    node = new_id()
    await store.apply([PartBatch(node, (written(1, b"x" * 101),))])
    assert len(await store.read(node, ["block-1"], limit=100)) == 1
    with pytest.raises(TooLarge, match="slice"):
        await store.read(node, ["block-0", "block-1"], limit=100)


async def test_what_a_crash_left_half_written_is_not_read(store: PartFiles, tmp_path: Path) -> None:
    node = new_id()
    await store.apply([PartBatch(node, (written(1, b"ab"),))])
    (array_directory(tmp_path, node) / ".block-0.part").write_bytes(b"half")
    assert (await store.read(node, ["block-0"], limit=9)) == {"block-0": b"a"}


async def test_deleting_may_be_repeated(store: PartFiles, tmp_path: Path) -> None:
    gone, kept = new_id(), new_id()
    await store.apply([PartBatch(node, (written(1, b"ab"),)) for node in (gone, kept)])
    for _ in range(2):
        await store.delete(gone, new_id())
    assert not array_directory(tmp_path, gone).exists()
    assert len(await store.read(kept, ["block-0"], limit=9)) == 1


async def test_a_disk_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"in the way")
    store = PartFiles(tmp_path / "root", split=split)
    with pytest.raises(Unavailable, match="cannot be written"):
        await store.apply([PartBatch(new_id(), (written(1, b"ab"),))])
    await store.close()


async def test_each_family_has_its_mimetype(store: PartFiles) -> None:
    sparse = SparseStructure((4,), ((4,),))
    found = [store.allocate(new_id(), s, None) for s in (RAGGED, sparse, AwkwardStructure(1, {}))]
    assert [place.mimetype for place in found] == [
        "application/x-ragged+sql",
        "application/x-parquet;structure=sparse",
        "application/x-awkward-buffers",
    ]
    assert all(place.is_directory for place in found)
    assert store.allocate(new_id(), sparse, "application/x-parquet; structure=sparse").mimetype == found[1].mimetype
    with pytest.raises(UnsupportedType, match="leave the mimetype out"):
        store.allocate(new_id(), sparse, "text/csv")
