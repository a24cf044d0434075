"""Which files an array takes, what is read and written of them, and what a crash leaves behind."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import numpy
import pytest

from tiled_stream.domain.errors import Unavailable
from tiled_stream.domain.events import ArrayWritten
from tiled_stream.domain.slices import Along, Selection, whole
from tiled_stream.storage import chunk_files, fenced_directory
from tiled_stream.storage.layout import array_directory
from tiled_stream.storage.port import ArrayBatch
from tiled_stream.storage.zarr_arrays import ZarrArrays
from tiled_stream.testing.array_contract import ArrayModel, cells
from tiled_stream.testing.factories import array_structure, new_id, record
from tiled_stream.testing.file_steps import FileSteps

F8 = numpy.dtype("<f8")


class Crash(BaseException):
    """The process is killed here."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ZarrArrays]:
    store = ZarrArrays(tmp_path)
    yield store
    await store.close()


def model_of(shape: tuple[int, ...], chunks: tuple[tuple[int, ...], ...] | None = None, seed: int = 0) -> ArrayModel:
    """An array of doubles."""
    return ArrayModel(array_structure(shape, chunks=chunks, resizable=True), F8, Random(seed))


async def test_only_chunks_that_are_touched_are_read(store: ZarrArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of((100, 4), ((10,) * 10, (2, 2)))
    model.write_whole()
    await store.apply([model.batch()])
    seen: list[tuple[str, slice]] = []
    rows = chunk_files._rows

    def spy(path: str, *args: Any) -> Any:
        seen.append((path.rsplit("/", 1)[1], args[-1][0]))
        return rows(path, *args)

    monkeypatch.setattr(chunk_files, "_rows", spy)
    selection = Selection((Along(77, -30, 3), Along(3, 1, 1, drop=True)))
    found = await store.read(model.node, model.structure, selection)
    numpy.testing.assert_array_equal(found, model.values[77::-30, 3])
    assert seen == [("c.1.1", slice(7, 8, 30)), ("c.4.1", slice(7, 8, 30)), ("c.7.1", slice(7, 8, 30))]


async def test_whole_chunks_are_written_without_being_read(store: ZarrArrays, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of((4, 6), ((2, 2), (3, 3)))
    model.write_whole()

    def never(*args: Any) -> Any:
        raise AssertionError("a chunk was read")

    monkeypatch.setattr(chunk_files, "_rows", never)
    await store.apply([model.batch()])
    await store.apply([model.batch()])
    monkeypatch.undo()
    numpy.testing.assert_array_equal(await store.read(model.node, model.structure, whole((4, 6))), model.values)


async def test_appending_to_a_large_chunk_does_not_rewrite_it(store: ZarrArrays, tmp_path: Path) -> None:
    model = model_of((1000, 8))
    model.write_whole()
    model.append()
    await store.apply([model.batch()])
    chunk = array_directory(tmp_path, model.node) / "c.1.0"
    before = chunk.stat().st_ino
    model.append(extent=3)
    model.append()
    await store.apply([model.batch(2)])
    assert chunk.stat().st_ino == before  # the same file, changed in place
    numpy.testing.assert_array_equal(await store.read(model.node, model.structure, whole((1005, 8))), model.values)
    model.write_region()
    model.write(ArrayWritten((1, 8), (1002, 0)), cells(F8, (1, 8), Random(1)), (1002, 0))
    await store.apply([model.batch(4)])
    assert chunk.stat().st_ino != before  # cells that readers know are replaced as a whole
    numpy.testing.assert_array_equal(await store.read(model.node, model.structure, whole((1005, 8))), model.values)


async def test_paused_append_in_place_reaches_no_file_that_is_visible(tmp_path: Path) -> None:
    """The successor appends the same row, and writes another one over it in the same batch: both in place."""
    loop, step = asyncio.get_running_loop(), 0
    first, second = ZarrArrays(tmp_path), ZarrArrays(tmp_path)
    while True:
        step += 1
        model = ArrayModel(array_structure((4, 3), chunks=((3, 1), (3,)), resizable=True), F8, Random(step))
        model.write_whole()
        model.append()
        model.write(ArrayWritten((1, 3), (4, 0)), cells(F8, (1, 3), Random(-step)), (4, 0))
        model.append()
        await first.apply([model.batch(0, 1, fence=1)])
        chunk = array_directory(tmp_path, model.node) / "c.1.0"
        before = chunk.stat().st_ino

        def takeover(model: ArrayModel = model) -> None:
            answer = asyncio.run_coroutine_threadsafe(second.apply([model.batch(1, 3, fence=2)]), loop).result(60)
            assert answer == [3]

        steps = FileSteps(tmp_path, at=step, action=takeover)
        with steps.watching():
            await first.apply([model.batch(1, 2, fence=1)])
        if not steps.is_done:
            assert chunk.stat().st_ino == before  # it was in place
            break
        await model.assert_reads(second, upto=3)
        assert await second.apply([model.batch(3, fence=2)]) == [4]
        await model.assert_reads(second)
    assert step > 10
    await first.close()
    await second.close()


async def test_appending_without_hard_links_rewrites_the_chunk(
    store: ZarrArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOTSUP, "no links here")

    monkeypatch.setattr(fenced_directory.os, "link", refuse)
    model = model_of((4, 3), ((3, 1), (3,)))
    model.write_whole()
    for n in range(6):
        model.append(extent=1 + n % 2)
        await store.apply([model.batch(0 if n == 0 else n + 1)])
        await model.assert_reads(store)


async def test_part_of_a_chunk_is_never_written_over_what_another_process_wrote(tmp_path: Path) -> None:
    """A process that remembers a smaller array takes a row for all that there is in a chunk."""
    first, second = ZarrArrays(tmp_path), ZarrArrays(tmp_path)
    model = model_of((2, 4), ((2,), (4,)))
    model.write(ArrayWritten((1, 4), (0, 0)), cells(F8, (1, 4), Random(1)), (0, 0))
    model.append(extent=2)
    model.append(extent=1)
    model.write(ArrayWritten((1, 4), (2, 0)), cells(F8, (1, 4), Random(2)), (2, 0))
    await first.apply([model.batch(0, 1, fence=1)])
    await second.apply([model.batch(1, 3, fence=2)])
    await first.apply([model.batch(1, 4, fence=3)])
    for store in (first, second):
        await model.assert_reads(store)
    await first.close()
    await second.close()


async def test_grid_of_an_array_that_was_deleted_is_not_remembered(tmp_path: Path) -> None:
    """By a process that only reads it: the array begins again with other chunks, or compressed."""
    reader, writers = ZarrArrays(tmp_path), [ZarrArrays(tmp_path), ZarrArrays(tmp_path, level=1)]
    node, records = new_id(), 0
    for n, chunks in enumerate((((2, 2), (4,)), ((4,), (2, 2)), ((4,), (2, 2)), ((1,) * 4, (4,)))):
        model = model_of((4, 4), chunks, seed=n)
        model.node = node
        model.delete()
        model.write_whole()
        events = [record(records + k, r.event, r.payload) for k, r in enumerate(model.records, start=1)]
        batch = ArrayBatch(node, model.structure, tuple(events), records, fence=n)
        records += 2
        assert await writers[n % 2].apply([batch]) == [records]
        await model.assert_reads(reader)
    for store in (reader, *writers):
        await store.close()


async def test_a_batch_of_many_small_patches_holds_few_chunks(store: ZarrArrays, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of((64, 64), ((8,) * 8, (8,) * 8), seed=3)
    model.write_whole()
    await store.apply([model.batch()])
    most = 0
    load = chunk_files.ChunkWriter._chunk

    def spy(self: chunk_files.ChunkWriter, index: tuple[int, ...]) -> Any:
        nonlocal most
        most = max(most, self._held)
        return load(self, index)

    monkeypatch.setattr(chunk_files.ChunkWriter, "_chunk", spy)
    monkeypatch.setattr(chunk_files, "_HELD", 2000)
    for _ in range(60):
        model.write_region()
    await store.apply([model.batch(1)])
    assert 0 < most <= 2000
    numpy.testing.assert_array_equal(await store.read(model.node, model.structure, whole((64, 64))), model.values)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("seed", range(6))
async def test_a_crash_anywhere_is_mended_by_the_same_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, level: int
) -> None:
    random = Random(seed)
    model = model_of((5, 6), ((2, 2, 1), (3, 3)), seed)
    applied = 0
    write = fenced_directory.write_all
    for _ in range(5):
        known = model.values.copy()
        structure = model.structure
        for _ in range(3):
            model.step()
        for _ in range(3):
            left = random.randrange(6)

            def dying(file: int, content: Any, offset: int) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    write(file, bytes(content)[: random.randrange(len(content) + 1)], offset)
                    raise Crash
                write(file, content, offset)

            store = ZarrArrays(tmp_path, level=level)
            monkeypatch.setattr(fenced_directory, "write_all", dying)
            try:
                await store.apply([model.batch(applied)])
            except Crash:
                pass
            finally:
                monkeypatch.setattr(fenced_directory, "write_all", write)
            seen = await store.read(model.node, structure, whole(structure.shape))  # every chunk is old or new, none is torn
            new = model.values[tuple(slice(n) for n in structure.shape)]
            assert set(seen.ravel()) <= set(known.ravel()) | set(new.ravel()) | {0.0} | _written(model, applied)
            await store.close()
        store = ZarrArrays(tmp_path, level=level)
        await store.apply([model.batch(applied)])
        applied = len(model.records)
        found = await store.read(model.node, model.structure, whole(model.structure.shape))
        numpy.testing.assert_array_equal(found, model.values)
        await store.close()


def _written(model: ArrayModel, after: int) -> set[float]:
    return {float(v) for r in model.records[after:] for v in numpy.frombuffer(r.payload, F8)}


async def test_a_damaged_chunk_is_named(store: ZarrArrays, tmp_path: Path) -> None:
    model = model_of((4,))
    model.write_whole()
    await store.apply([model.batch()])
    (array_directory(tmp_path, model.node) / "c.0").write_bytes(b"half")
    with pytest.raises(Unavailable, match=r"c\.0 is damaged"):
        await store.read(model.node, model.structure, whole((4,)))


async def test_metadata_that_cannot_be_understood_are_named(store: ZarrArrays, tmp_path: Path) -> None:
    model = model_of((4,))
    directory = array_directory(tmp_path, model.node)
    directory.mkdir(parents=True)
    (directory / "zarr.json").write_text("{}")
    with pytest.raises(Unavailable, match="metadata"):
        await store.read(model.node, model.structure, whole((4,)))


async def test_a_disk_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = ZarrArrays(tmp_path / "file")
    model = model_of((4,))
    model.write_whole()
    with pytest.raises(Unavailable, match="cannot be written now"):
        await store.apply([model.batch()])
    await store.close()


async def test_nothing_is_left_running_and_nothing_is_made_ahead(tmp_path: Path) -> None:
    before = threading.active_count()
    store = ZarrArrays(tmp_path / "later")
    await store.open()
    model = model_of((4,))
    place = store.allocate(model.node, model.structure, None)
    await store.read(model.node, model.structure, whole((4,)))
    await store.apply([ArrayBatch(model.node, model.structure, ())])
    assert not (tmp_path / "later").exists()
    model.write_whole()
    await store.apply([model.batch()])
    assert [str(p) for p in (tmp_path / "later").glob("*/*")] == [place.data_uri.removeprefix("file://localhost")]
    await store.close()
    assert threading.active_count() == before
    with pytest.raises(Unavailable, match="closed"):
        await store.read(model.node, model.structure, whole((4,)))


async def test_an_array_is_written_once_each_chunk_has_a_file(store: ZarrArrays) -> None:
    model = model_of((4, 2), ((2, 2), (2,)))
    model.write(ArrayWritten((2, 2), offset=(0, 0)), cells(model.dtype, (2, 2), Random(1)), (0, 0))
    await store.apply([model.batch()])
    assert not await store.is_written(model.node, model.structure)
    model.write_whole()
    await store.apply([model.batch()])
    assert await store.is_written(model.node, model.structure)
