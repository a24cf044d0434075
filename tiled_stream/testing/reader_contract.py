"""What every reader of arrays in registered files does: each sentence of `files/port.py` as a test, with numpy as the model.

Files are written with the library of their format. Subclass `ArrayReaderContract`, say what is read, and how it is written:

    class TestMyFormat(ArrayReaderContract):
        mimetype = "application/x-mine"
        parameters = {"dataset": "/x"}

        def write(self, path, values): ...     # one file or directory with these values

`is_stack` is True where each file is one frame. Tables have `table_reader_contract.py`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar
from urllib.parse import quote

import numpy
import pytest

from ..domain.dtypes import from_numpy
from ..domain.errors import Forbidden, Malformed, TooLarge, Unavailable
from ..domain.slices import Along, Selection, whole
from ..domain.structures import ArrayStructure
from ..files.formats import open_array
from ..files.port import Damaged, Missing, Source
from ..files.wall import Wall
from .array_contract import cells
from .array_model import selections

__all__ = ["LIMIT", "ArrayReaderContract", "aged", "array_source", "open_files", "uri"]

Array = numpy.ndarray[Any, Any]

LIMIT = 64 << 20


def uri(path: Path) -> str:
    """As detectors say it."""
    return "file://localhost" + quote(str(path))


def aged(path: Path) -> None:
    """As if nobody had touched it for an hour."""
    then = time.time() - 3600
    for place in (path, *path.rglob("*")):
        os.utime(place, (then, then))


def array_source(
    paths: Sequence[Path], values: Array, mimetype: str, *, shape: tuple[int, ...] | None = None, **fields: Any
) -> Source:
    """A source that declares `values`, or their dtype in another shape. The wall is around the first file's directory."""
    shape = values.shape if shape is None else shape
    structure = ArrayStructure(from_numpy(values.dtype), tuple((n,) for n in shape), shape)
    inside = [paths[0].parent] if paths else []
    options = {"wall": Wall(inside), "now": time.time(), "limit": LIMIT, "uris": tuple(map(uri, paths)), **fields}
    return Source(structure=structure, mimetype=mimetype, **options)


def open_files() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


class ArrayReaderContract:
    """See the module."""

    mimetype: ClassVar[str]
    parameters: ClassVar[dict[str, Any]] = {}
    is_stack: ClassVar[bool] = False
    #: How many dimensions one file can have, and what its elements can be.
    dimensions: ClassVar[tuple[int, ...]] = (1, 2, 3)
    dtypes: ClassVar[tuple[str, ...]] = ("|u1", "<i2", "<f4", "<f8")
    is_directory: ClassVar[bool] = False
    #: A file that is cut in half is noticed.
    is_cut_noticed: ClassVar[bool] = True

    def write(self, path: Path, values: Array) -> None:
        """One file with these values, by the library of the format."""
        raise NotImplementedError("give the suite a method `write`")

    def made(self, directory: Path, values: Array) -> list[Path]:
        """The values in one file; in a stack, along the first axis, in one file each."""
        if not self.is_stack:
            self.write(directory / "data 1", values)
            return [directory / "data 1"]
        paths = [directory / f"frame {n}" for n in range(len(values))]
        for path, frame in zip(paths, values, strict=True):
            self.write(path, frame)
        return paths

    def values(self, random: Random, *, least: int = 1, dtype: str | None = None) -> Array:
        """Random ones."""
        kind = numpy.dtype(dtype or random.choice(self.dtypes))
        shape = tuple(random.randint(max(1, least), 9) for _ in range(random.choice(self.dimensions) + self.is_stack))
        return cells(kind, shape, random)

    def read(self, paths: Sequence[Path], values: Array, selection: Selection | None = None, **fields: Any) -> Array:
        """What the reader gives; all of it without a selection."""
        source = array_source(paths, values, self.mimetype, parameters=self.parameters, **fields)
        assert isinstance(source.structure, ArrayStructure)
        return open_array(source).read(whole(source.structure.shape) if selection is None else selection)

    def assert_same(self, found: Array, wanted: Array) -> None:
        """Bit by bit, in the dtype that was declared."""
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        assert found.flags.c_contiguous
        assert found.tobytes() == numpy.ascontiguousarray(wanted).tobytes()

    @pytest.mark.parametrize("seed", range(12))
    def test_random_selections_equal_numpy(self, tmp_path: Path, seed: int) -> None:
        random = Random(seed)
        values = self.values(random)
        paths = self.made(tmp_path, values)
        self.assert_same(self.read(paths, values), values)
        for _ in range(25):
            selection = selections(values.shape, random)
            wanted = values[(..., *selection.index)]
            self.assert_same(self.read(paths, values, selection), wanted)

    def test_every_data_type(self, tmp_path: Path) -> None:
        for number, dtype in enumerate(self.dtypes):
            (tmp_path / str(number)).mkdir()
            values = self.values(Random(number), dtype=dtype)
            self.assert_same(self.read(self.made(tmp_path / str(number), values), values), values)

    def test_axes_of_length_one_may_be_declared(self, tmp_path: Path) -> None:
        values = self.values(Random(1), least=2)
        paths = self.made(tmp_path, values)
        for shape in ((values.shape[0], 1, *values.shape[1:]), (1, *values.shape), (*values.shape, 1)):
            self.assert_same(self.read(paths, values, shape=shape), values.reshape(shape))
            random = Random(2)
            for _ in range(10):
                selection = selections(shape, random)
                wanted = values.reshape(shape)[(..., *selection.index)]
                self.assert_same(self.read(paths, values, selection, shape=shape), wanted)

    def test_what_is_not_declared_yet_is_not_shown(self, tmp_path: Path) -> None:
        values = self.values(Random(3), least=3)
        paths = self.made(tmp_path, values)
        self.assert_same(self.read(paths, values, shape=(2, *values.shape[1:])), values[:2])

    def test_rows_that_are_missing_can_be_waited_for(self, tmp_path: Path) -> None:
        values = self.values(Random(4), least=3)
        paths = self.made(tmp_path, values)
        shape = (values.shape[0] + 2, *values.shape[1:])
        with pytest.raises(Unavailable) as caught:
            self.read(paths, values, shape=shape)
        assert caught.value.retry_after == 1.0
        there = Selection((whole((2,)).axes[0], *whole(values.shape[1:]).axes))
        self.assert_same(self.read(paths, values, there, shape=shape), values[:2])

    def test_no_file_yet(self, tmp_path: Path) -> None:
        values = self.values(Random(5))
        with pytest.raises(Unavailable):
            self.read([], values)
        assert self.read([], values, shape=(0, *values.shape[1:])).shape == (0, *values.shape[1:])

    def test_nothing_is_opened_for_nothing(self, tmp_path: Path) -> None:
        values = self.values(Random(6))
        empty = Selection(tuple(whole((0,)).axes[0] for _ in values.shape))
        found = self.read([tmp_path / "nowhere"], values, empty)
        assert (found.shape, found.dtype) == ((0,) * values.ndim, values.dtype)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(Missing, match="nowhere"):
            self.read([tmp_path / "nowhere"], self.values(Random(7)))

    def test_something_else_instead(self, tmp_path: Path) -> None:
        values = self.values(Random(8))
        path = tmp_path / "else"
        path.write_bytes(b"\x00\xff this is not it \n" * 40)
        with pytest.raises(Unavailable):
            self.read([path], values)
        aged(path)
        with pytest.raises(Malformed):
            self.read([path], values)
        path.write_bytes(b"")
        with pytest.raises(Unavailable):
            self.read([path], values)

    def test_a_file_that_is_cut(self, tmp_path: Path) -> None:
        if self.is_directory or not self.is_cut_noticed:
            pytest.skip("the format cannot tell")
        values = cells(numpy.dtype(self.dtypes[-1]), (40,) * (max(self.dimensions) + self.is_stack), Random(9))[:3]
        path = self.made(tmp_path, values)[0]
        content = path.read_bytes()
        for part in (2, len(content) // 2, len(content) * 3 // 4):
            path.write_bytes(content[:part])
            with pytest.raises(Unavailable):
                self.read([path], values[:1] if self.is_stack else values)
            aged(path)
            with pytest.raises(Damaged):
                self.read([path], values[:1] if self.is_stack else values)

    def test_the_wall(self, tmp_path: Path) -> None:
        inside, outside = tmp_path / "in", tmp_path / "out"
        inside.mkdir()
        outside.mkdir()
        values = self.values(Random(10))
        paths = self.made(outside, values)
        wall = Wall([inside])
        with pytest.raises(Forbidden):
            self.read(paths, values, wall=wall)
        links = [inside / path.name for path in paths]
        for link, path in zip(links, paths, strict=True):
            link.symlink_to(path)
        with pytest.raises(Forbidden):
            self.read(links, values, wall=wall)

    def test_values_are_never_changed(self, tmp_path: Path) -> None:
        values = self.values(Random(11), dtype=self.dtypes[0])
        paths = self.made(tmp_path, values)
        wider = numpy.promote_types(values.dtype, "<f8")
        self.assert_same(self.read(paths, values.astype(wider)), values.astype(wider))
        for path in paths:
            aged(path)
        with pytest.raises(Malformed):
            self.read(paths, values.astype("<M8[s]"))

    def test_a_shape_that_does_not_fit(self, tmp_path: Path) -> None:
        values = cells(numpy.dtype(self.dtypes[0]), (4,) * (max(self.dimensions) + self.is_stack), Random(12))
        with pytest.raises(Malformed):
            self.read(self.made(tmp_path, values), values, shape=(*values.shape[:-1], 3))

    def test_as_many_cells_in_another_shape(self, tmp_path: Path) -> None:
        values = cells(numpy.dtype(self.dtypes[0]), (4,) * (max(self.dimensions) + self.is_stack), Random(13))
        shape = (*values.shape[:-1], 2, 2)
        found = self.read(self.made(tmp_path, values), values, shape=shape)
        self.assert_same(found, values.reshape(shape))

    def test_more_than_may_be_held(self, tmp_path: Path) -> None:
        values = self.values(Random(14), least=4)
        paths = self.made(tmp_path, values)
        with pytest.raises(TooLarge):
            self.read(paths, values, limit=values.nbytes - 1)

    def test_nothing_stays_open_and_nothing_is_written(self, tmp_path: Path) -> None:
        values = self.values(Random(15))
        paths = self.made(tmp_path, values)
        self.read(paths, values)
        for path in paths:
            aged(path)
        before = [(p, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(tmp_path.rglob("*"))]
        files = open_files()
        for _ in range(3):
            self.read(paths, values)
        assert open_files() == files
        assert [(p, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(tmp_path.rglob("*"))] == before

    def test_only_files_that_are_touched_are_opened(self, tmp_path: Path) -> None:
        if not self.is_stack:
            pytest.skip("one file")
        values = self.values(Random(16), least=5)
        paths = self.made(tmp_path, values)
        for path in (*paths[:2], *paths[3:]):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        one = Selection((Along(2, 1, 1, drop=True), *whole(values.shape[1:]).axes))
        self.assert_same(self.read(paths, values, one), values[2])
