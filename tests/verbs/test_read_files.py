"""Registered files, between the present of a node and the readers."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from tests.verbs.conftest import Core
from tiled_stream.domain.commands import CreateChild, EndStream, NewDataSource, UpdateDataSource
from tiled_stream.domain.dtypes import from_numpy
from tiled_stream.domain.errors import Forbidden, NotFound, NotSupported, Unavailable, UnsupportedType
from tiled_stream.domain.nodes import Asset
from tiled_stream.domain.slices import whole
from tiled_stream.domain.structures import ArrayStructure
from tiled_stream.files.port import Missing
from tiled_stream.nodes.barrier import Barrier
from tiled_stream.query.read import DataReader
from tiled_stream.query.read_files import ARRIVAL, FileData

STACK = "multipart/related;type=application/x-npy"


class Clock:
    """Ours, moved by hand."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def files(core: Core, tmp_path: Path, clock: Clock) -> AsyncIterator[FileData]:
    files = FileData([str(tmp_path)], log=core.log, now=clock, limit=1 << 20, is_strict=True)
    yield files
    await files.close()


@pytest.fixture
def reader(core: Core, files: FileData) -> DataReader:
    return DataReader(barrier=core.barrier, arrays=core.arrays, parts=None, tables=None, files=files)


def structure(length: int) -> ArrayStructure:
    shape = (length, 3)
    return ArrayStructure(from_numpy(numpy.dtype("<i8")), tuple((n,) for n in shape), shape)


def assets(directory: Path, *places: tuple[int | None, str]) -> tuple[Asset, ...]:
    parameter = "data_uri" if any(num is None for num, _ in places) else "data_uris"
    return tuple(Asset(f"file://localhost{directory}/{name}", False, parameter, num) for num, name in places)


async def register(core: Core, length: int, *assets: Asset, mimetype: str = STACK) -> int:
    source = NewDataSource("array", structure(length), mimetype=mimetype, assets=assets, management="external")
    accepted = await core.writer.submit((), CreateChild("a", "array", {}, data_sources=(source,), registered=True))
    assert accepted.node is not None
    return accepted.node.data_sources[0].id


async def read(core: Core, reader: DataReader) -> list[Any]:
    at = await core.browse.resolve(("a",))
    declared = await reader.array_structure(at)
    values: list[Any] = (await reader.array(at, declared, whole(declared.shape))).tolist()
    return values


def row(number: int) -> list[int]:
    return [number] * 3


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for number in range(4):
        numpy.save(tmp_path / f"{number}.npy", numpy.array(row(number)))
    return tmp_path


async def test_files_come_in_the_order_of_their_numbers(core: Core, reader: DataReader, frames: Path) -> None:
    await register(core, 3, *assets(frames, (2, "0.npy"), (0, "3.npy"), (1, "1.npy")))
    assert await read(core, reader) == [row(3), row(1), row(0)]


async def test_a_number_that_is_missing_shifts_nothing(core: Core, reader: DataReader, frames: Path) -> None:
    id = await register(core, 3, *assets(frames, (0, "0.npy"), (2, "2.npy")))
    with pytest.raises(Unavailable, match="1 files are registered"):
        await read(core, reader)
    late = NewDataSource("array", structure(3), mimetype=STACK, assets=assets(frames, (1, "1.npy")), management="external", id=id)
    await core.writer.submit(("a",), UpdateDataSource(late))
    assert await read(core, reader) == [row(0), row(1), row(2)]


async def test_numbers_may_begin_anywhere_and_a_place_is_where_it_was_said_last(
    core: Core, reader: DataReader, frames: Path
) -> None:
    id = await register(core, 2, *assets(frames, (5, "0.npy"), (6, "1.npy")))
    assert await read(core, reader) == [row(0), row(1)]
    moved = NewDataSource(
        "array", structure(2), mimetype=STACK, assets=assets(frames, (6, "3.npy")), management="external", id=id
    )
    await core.writer.submit(("a",), UpdateDataSource(moved))
    assert await read(core, reader) == [row(0), row(3)]


async def test_a_file_has_a_minute_to_arrive(core: Core, reader: DataReader, tmp_path: Path, clock: Clock) -> None:
    id = await register(core, 1, *assets(tmp_path, (0, "late.npy")))
    with pytest.raises(Unavailable, match="on its way"):
        await read(core, reader)
    clock.offset = ARRIVAL + 1
    with pytest.raises(Missing):
        await read(core, reader)
    again = NewDataSource("array", structure(1), mimetype=STACK, management="external", id=id)
    await core.writer.submit(("a",), UpdateDataSource(again))
    clock.offset = 1.0
    with pytest.raises(Unavailable):  # counted from the last word
        await read(core, reader)
    await core.writer.submit(("a",), EndStream())
    with pytest.raises(Missing):
        await read(core, reader)


async def test_what_may_be_registered(files: FileData, tmp_path: Path) -> None:
    await files.check("image/tiff", assets(tmp_path, (0, "x"), (1, "y")))
    await files.check(None, ())
    with pytest.raises(UnsupportedType):
        await files.check("image/png", ())
    with pytest.raises(Forbidden):
        await files.check("image/tiff", assets(tmp_path.parent, (0, "x")))


async def test_the_asset_of_another_node(core: Core, reader: DataReader, frames: Path) -> None:
    await register(core, 1, *assets(frames, (0, "0.npy")))
    at = await core.browse.resolve(("a",))
    known = at.node.data_sources[0].assets[0]
    assert known.id is not None
    assert await reader.asset(at, known.id) == known
    with pytest.raises(NotFound):
        await reader.asset(at, known.id + 1)
    with pytest.raises(NotFound):
        await reader.asset(await core.browse.resolve(()), known.id)


async def test_a_server_without_readers(core: Core, frames: Path) -> None:
    await register(core, 1, *assets(frames, (0, "0.npy")))
    with pytest.raises(NotSupported, match="-r DIRECTORY"):
        await read(core, core.reader)


async def test_closing_ends_the_threads(core: Core, frames: Path, clock: Clock) -> None:
    """I9"""
    files = FileData([str(frames)], log=core.log, now=clock, limit=1 << 20)
    reader = DataReader(barrier=Barrier(core.log, timeout=1), arrays=None, parts=None, tables=None, files=files)
    await register(core, 1, *assets(frames, (0, "0.npy")))
    assert await read(core, reader) == [row(0)]
    assert any(t.name.startswith("file reader") for t in threading.enumerate())
    await files.close()
    await files.close()
    assert not any(t.name.startswith("file reader") for t in threading.enumerate())
    with pytest.raises(Unavailable):
        await read(core, reader)
