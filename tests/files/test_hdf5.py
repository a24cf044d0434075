"""HDF5 beyond the contract: files that are being written, files that refer to others, datasets of all kinds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import h5py
import numpy
import pytest

from tiled_stream.domain.errors import Forbidden, Malformed, NotFound, NotSupported, Unavailable
from tiled_stream.domain.slices import whole
from tiled_stream.files.formats import open_array
from tiled_stream.files.port import Damaged
from tiled_stream.files.wall import Wall
from tiled_stream.testing.reader_contract import aged, array_source

MIMETYPE = "application/x-hdf5"


def read(paths: Path | list[Path], values: Any, dataset: str = "x", **parameters: Any) -> Any:
    """All that is declared, which is the shape and type of `values`."""
    wall = parameters.pop("wall", None)
    paths = [paths] if isinstance(paths, Path) else paths
    fields = {} if wall is None else {"wall": Wall([wall])}
    source = array_source(paths, values, MIMETYPE, parameters={"dataset": dataset, **parameters}, **fields)
    return open_array(source).read(whole(values.shape))


# ------------------------------------------------------------------ while somebody writes

WRITER = """
import h5py, sys
f = h5py.File(sys.argv[1], "w", libver="latest")
d = f.create_dataset("x", (0, 3), maxshape=(None, 3), chunks=(2, 3), dtype="i4")
if sys.argv[2] == "swmr":
    f.swmr_mode = True
print("ready", flush=True)
for line in sys.stdin:
    n = int(line)
    d.resize(n, 0)
    d[n - 1] = n
    d.flush()
    print(n, flush=True)
"""


class Writer:
    """A detector in a process of its own."""

    def __init__(self, path: Path, mode: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def write(self, number: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{number}\n"

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(10)


def rows(count: int) -> Any:
    return numpy.repeat(numpy.arange(1, count + 1, dtype="<i4"), 3).reshape(count, 3)


def test_a_file_grows_in_swmr_mode_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    writer = Writer(path, "swmr")
    for number in range(1, 6):
        writer.write(number)
        assert (read(path, rows(number)) == rows(number)).all()
        with pytest.raises(Unavailable):
            read(path, rows(number + 1))
    with pytest.raises(Unavailable, match="open for writing"):
        read(path, rows(5), swmr=False)
    writer.kill()  # what it had flushed can be read for ever
    aged(path)
    assert (read(path, rows(5)) == rows(5)).all()


def test_a_file_that_is_written_otherwise_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    writer = Writer(path, "plain")
    writer.write(1)
    with pytest.raises(Unavailable, match="open for writing"):
        read(path, rows(1))
    writer.close()
    assert (read(path, rows(1)) == rows(1)).all()


def test_reading_does_not_lock_the_writer_out(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=rows(2), maxshape=(None, 3), chunks=(2, 3))
    stop = False

    def reader() -> None:
        while not stop:
            try:
                read(path, rows(2))
            except Unavailable:
                time.sleep(0.001)

    thread = Thread(target=reader)
    thread.start()
    append = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); f['x'].resize(f['x'].shape[0] + 1, 0); f.close()"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", append, str(path)], check=True)
    stop = True
    thread.join()


def test_a_spoiled_file_of_a_dead_writer_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    writer = Writer(path, "swmr")
    for number in range(1, 40):
        writer.write(number)
    writer.kill()
    content = path.read_bytes()
    for part in (len(content) // 3, len(content) // 2, len(content) * 9 // 10):
        path.write_bytes(content[:part] + bytes(len(content) - part))
        aged(path)
        started = time.monotonic()
        try:
            found = read(path, rows(39))
        except (Damaged, NotFound):
            pass
        else:
            assert found.shape == (39, 3)  # the rows are gone, the rest is in order
        assert time.monotonic() - started < 3


def test_many_threads_and_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.h5" for n in range(4)]
    for number, path in enumerate(paths):
        with h5py.File(path, "w", libver="latest") as file:
            file["x"] = rows(5) + number
    wrong: list[Any] = []

    def reader(number: int) -> None:
        for _ in range(20):
            if not (read(paths[number % 4], rows(5)) == rows(5) + number % 4).all():
                wrong.append(number)

    threads = [Thread(target=reader, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ------------------------------------------------------------------ files that refer to others


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that must not be read."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["x"] = rows(2)
    return path


def test_links_within_are_followed(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    (inside / "deep").mkdir(parents=True)
    with h5py.File(inside / "deep" / "data.h5", "w") as file:
        file["entry/x"] = rows(2)
        file["entry/again"] = h5py.SoftLink("/entry/x")
        file["entry/near"] = h5py.SoftLink("again")
    with h5py.File(inside / "master.h5", "w") as file:
        file["a/b"] = h5py.ExternalLink("deep/data.h5", "/entry")
        file["a/c"] = h5py.SoftLink("/a/b/near")
    for name in ("a/b/x", "a/b/again", "a/b/near", "/a/c", "a/./b//near"):
        assert (read(inside / "master.h5", rows(2), name) == rows(2)).all(), name


def test_links_that_lead_out_are_refused(tmp_path: Path, outside: Path) -> None:
    master = tmp_path / "in" / "master.h5"
    (tmp_path / "in" / "link.h5").symlink_to(outside)
    with h5py.File(master, "w") as file:
        file["up"] = h5py.ExternalLink("../secret.h5", "/x")
        file["absolute"] = h5py.ExternalLink(str(outside), "/x")
        file["linked"] = h5py.ExternalLink("link.h5", "/x")
        file["soft"] = h5py.SoftLink("/up")
        file["round"] = h5py.SoftLink("/round")
    for name in ("up", "absolute", "linked", "soft"):
        with pytest.raises(Forbidden):
            read(master, rows(2), name, wall=tmp_path / "in")
        assert (read(master, rows(2), name, wall=tmp_path) == rows(2)).all()
    with pytest.raises(Malformed, match="links"):
        read(master, rows(2), "round")


def virtual(path: Path, source: str, name: str = "x") -> None:
    layout = h5py.VirtualLayout((2, 3), "<i4")
    layout[:] = h5py.VirtualSource(source, name, shape=(2, 3))
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("x", layout, fillvalue=7)


def pattern(path: Path, source: str) -> None:
    """One row a file, as many as there will be: h5py has only the functions of C for it."""
    rows_of_all = h5py.h5s.create_simple((2, 3), (h5py.h5s.UNLIMITED, 3))
    rows_of_all.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (1, 1), (1, 3))
    row = h5py.h5s.create_simple((1, 3), (1, 3))
    row.select_hyperslab((0, 0), (1, 1), (1, 1), (1, 3))
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_virtual(rows_of_all, source.encode(), b"x", row)
    with h5py.File(path, "w", libver="latest") as file:
        space = h5py.h5s.create_simple((2, 3), (h5py.h5s.UNLIMITED, 3))
        h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I32LE, space, made)


def test_virtual_datasets(tmp_path: Path, outside: Path) -> None:
    inside = tmp_path / "in"
    with h5py.File(inside / "data.h5", "w") as file:
        file["x"] = rows(2)
        file["out"] = h5py.ExternalLink("../secret.h5", "/x")
    virtual(inside / "near.h5", "data.h5")
    assert (read(inside / "near.h5", rows(2), wall=inside) == rows(2)).all()
    virtual(inside / "not yet.h5", "nowhere.h5")
    assert (read(inside / "not yet.h5", rows(2), wall=inside) == 7).all()
    virtual(inside / "far.h5", str(outside))
    virtual(inside / "linked.h5", "data.h5", "out")
    virtual(inside / "nested.h5", "far.h5")
    pattern(inside / "pattern.h5", "%b.h5")
    for name in ("far.h5", "linked.h5", "nested.h5"):
        with pytest.raises(Forbidden):
            read(inside / name, rows(2), wall=inside)
    with pytest.raises(NotSupported, match="pattern"):
        read(inside / "pattern.h5", rows(2), wall=inside)


def test_raw_data_outside(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.raw").write_bytes(rows(2).tobytes())
    for name, place in (("near", inside / "data.raw"), ("far", tmp_path / "secret.raw")):
        with h5py.File(inside / f"{name}.h5", "w") as file:
            file.create_dataset("x", (2, 3), "<i4", external=[(str(place), 0, 24)])
    (inside / "data.raw").write_bytes(rows(2).tobytes())
    assert (read(inside / "near.h5", rows(2), wall=inside) == rows(2)).all()
    with pytest.raises(Forbidden):
        read(inside / "far.h5", rows(2), wall=inside)


# ------------------------------------------------------------------ datasets of all kinds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = rows(4)
        file["scalar"] = 2.5
        file["texts"] = ["a", "水é", ""]
        file["records"] = numpy.array([(1, 2.5), (3, 4.5)], [("n", "<i4"), ("v", "<f8")])
        file["empty"] = h5py.Empty("f")
        file["ragged"] = numpy.array([numpy.arange(2), numpy.arange(3)], object).astype(h5py.vlen_dtype("i4"))
        file["group/x"] = 1
    return path


def test_scalars_texts_and_records(path: Path) -> None:
    for shape in ((), (1,), (1, 1)):
        assert read(path, numpy.zeros(shape), "scalar").tolist() == numpy.full(shape, 2.5).tolist()
    assert read(path, numpy.zeros(3, "U4"), "texts").tolist() == ["a", "水é", ""]
    assert read(path, numpy.zeros(3, "S8"), "texts").tolist() == [b"a", "水é".encode(), b""]
    with pytest.raises(Malformed):
        read(path, numpy.zeros(3, "U1"), "texts")
    records = numpy.zeros(2, [("n", "<i4"), ("v", "<f8")])
    assert read(path, records, "records").tolist() == [(1, 2.5), (3, 4.5)]


def test_what_is_no_array(path: Path) -> None:
    for name, error in (
        ("group", Malformed),
        ("empty", Malformed),
        ("ragged", NotSupported),
        ("no", NotFound),
        ("x/y", NotFound),
    ):
        with pytest.raises(error):
            read(path, rows(1), name)
    with pytest.raises(Malformed, match="'dataset'"):
        read(path, rows(1), "")
    with pytest.raises(Malformed, match="'locking'"):
        read(path, rows(1), locking="often")


@pytest.mark.parametrize("text", ["(1:3, ...)", "1:3", ["1:3", ":"], "(..., :)", "(:, 0)", [":", "0:1"], "...,::2"])
def test_the_parameter_slice(path: Path, text: Any) -> None:
    numpy_text = ",".join(text) if isinstance(text, list) else text.strip("()")
    wanted = eval(f"rows(4)[{numpy_text}]")
    assert (read(path, wanted, slice=text, squeeze=True) == wanted).all()


def test_a_slice_of_several_files(path: Path) -> None:
    both = numpy.concatenate([rows(4), rows(4)])
    assert (read([path, path], both) == both).all()
    assert (read([path, path], both[:, 1], slice="(:, 1)") == both[:, 1]).all()
    with pytest.raises(NotSupported, match="first axis"):
        read([path, path], both[:2], slice="(1:, :)")
    for bad in ("(..., ...)", "1,2,3", "x"):
        with pytest.raises((Malformed, NotSupported)):
            read(path, rows(4), slice=bad)


def test_five_events_of_two_frames(tmp_path: Path) -> None:
    """TiledWriter stacks: what is (12, 3) in the file is declared as (5, 2, 3), while the sixth event is on its way."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = rows(12)
    assert (read(tmp_path / "x.h5", rows(10).reshape(5, 2, 3)) == rows(10).reshape(5, 2, 3)).all()


def test_a_compression_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=rows(2), compression="gzip")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    with pytest.raises(NotSupported, match="hdf5plugin"):
        read(tmp_path / "x.h5", rows(2))
