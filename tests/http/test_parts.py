"""Ragged, awkward and sparse arrays through HTTP: what comes back equals what awkward and numpy make of the same data."""

from __future__ import annotations

import io
import zipfile
from random import Random
from typing import Any

import awkward
import numpy
import orjson
import pyarrow
import pyarrow.parquet
import pytest

DOUBLE = {"endianness": "little", "kind": "f", "itemsize": 8, "dt_units": None}
LONG = DOUBLE | {"kind": "i"}
ZIP = {"Content-Type": "application/zip"}
ARROW = "application/vnd.apache.arrow.file"


def zip_of(array: awkward.Array, *, form: bool = True) -> bytes:
    """As clients send them."""
    made, length, buffers = awkward.to_buffers(awkward.to_packed(array))
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for name, buffer in buffers.items():
            file.writestr(name, numpy.ascontiguousarray(buffer).tobytes())
        if form:
            file.writestr("length", length.to_bytes(8, "big"))
            file.writestr("form", orjson.dumps(made.to_json()))
    return sink.getvalue()


def from_zip(body: bytes) -> awkward.Array:
    """As clients read them."""
    with zipfile.ZipFile(io.BytesIO(body)) as file:
        form = awkward.forms.from_json(orjson.loads(file.read("form")))
        buffers = {k: numpy.frombuffer(file.read(k), t) for k, t in form.expected_from_buffers().items()}
        return awkward.from_buffers(form, int.from_bytes(file.read("length"), "big"), buffers)


def random_lists(random: Random, axes: list[int | None]) -> Any:
    """Nested lists of random lengths, or of fixed ones."""
    if not axes:
        return random.choice([random.random(), float(random.randrange(-9, 9))])
    length = random.choice([0, 1, 2, 5]) if axes[0] is None else axes[0]
    return [random_lists(random, axes[1:]) for _ in range(length)]


def flat(lists: Any) -> list[float]:
    """All elements."""
    return [x for part in lists for x in flat(part)] if isinstance(lists, list) else [lists]


async def ragged(
    server: Any, path: str, rows: int, axes: list[int | None], chunks: list[int] | None = None, size: int = 0
) -> None:
    structure = {
        "data_type": DOUBLE,
        "shape": [rows, *axes],
        "size": size,
        "chunks": [chunks or [rows], *(None if n is None else [n] for n in axes)],
        "dims": None,
        "resizable": False,
    }
    source = {"structure_family": "ragged", "structure": structure, "mimetype": None, "management": "writable"}
    await server.create(path, "ragged", data_sources=[source])


async def read(server: Any, path: str, accept: str = "application/zip") -> bytes:
    response = await server.client.get(f"/api/v1{path}", headers={"Accept": accept})
    assert response.status_code == 200, response.text
    return response.content


@pytest.mark.parametrize("seed", range(15))
async def test_ragged_arrays_equal_awkward(server: Any, seed: int) -> None:
    random = Random(seed)
    axes: list[int | None] = [random.choice([None, None, 2, 1]) for _ in range(random.randrange(4))]
    chunks = [random.randrange(4) for _ in range(random.randrange(1, 4))]
    rows = [random_lists(random, axes) for _ in range(sum(chunks))]
    await ragged(server, "r", len(rows), axes, chunks, size=len(flat(rows)))
    typed = [[random_lists(random, axes)]]  # so that an array without rows has a type
    if seed % 2:
        await server.ok("PUT", "/ragged/full/r", content=zip_of(awkward.Array([*rows, *typed[0]])[: len(rows)]), headers=ZIP)
    else:
        begin = 0
        for index, count in enumerate(chunks):
            part = awkward.Array([*rows[begin : begin + count], *typed[0]])[:count]
            await server.ok("PUT", f"/ragged/block/r?block={index}", content=zip_of(part), headers=ZIP)
            begin += count
    for _ in range(random.randrange(3)):
        more = [random_lists(random, axes) for _ in range(random.randrange(1, 4))]
        path = f"/ragged/full/r?offset={len(rows)}&shape={len(more)}&extend=true"
        answer = await server.ok("PATCH", path, content=zip_of(awkward.Array(more)), headers=ZIP)
        rows += more
        chunks.append(len(more))
        assert (answer["shape"], answer["chunks"][0]) == ([len(rows), *axes], chunks)
        assert answer["size"] == len(flat(rows))
        assert (await server.ok("GET", "/metadata/r"))["data"]["attributes"]["structure"] == answer
    assert orjson.loads(await read(server, "/ragged/full/r", "application/json")) == rows
    assert awkward.to_list(from_zip(await read(server, "/ragged/full/r"))) == rows
    for _ in range(10):
        low, high, step = random.randrange(-9, 9), random.randrange(-9, 9), random.choice([1, 2, -1])
        found = from_zip(await read(server, f"/ragged/full/r?slice={low}:{high}:{step}"))
        assert awkward.to_list(found) == rows[low:high:step]
    for index in range(len(rows)):
        assert orjson.loads(await read(server, f"/ragged/full/r?slice={index}", "*/*")) == rows[index]
        if axes:
            wanted = awkward.to_list(awkward.Array(rows)[index : index + 1, :2])
            assert awkward.to_list(from_zip(await read(server, f"/ragged/full/r?slice={index}:{index + 1},:2"))) == wanted


@pytest.mark.parametrize("kind", ["i2", "u8", "f4", "?", "c16", "M8[ns]", "m8[us]"])
async def test_ragged_arrays_of_other_elements(server: Any, kind: str) -> None:
    values = numpy.arange(6).astype("i8" if kind[0] in "mM" else kind).astype(kind)
    array = awkward.unflatten(values, [1, 0, 5])
    dtype = values.dtype
    data_type = {
        "endianness": "not_applicable" if dtype.itemsize == 1 else "little",
        "kind": dtype.kind,
        "itemsize": dtype.itemsize,
        "dt_units": f"[{kind[3:-1]}]" if "[" in kind else None,
    }
    structure = {
        "data_type": data_type,
        "shape": [3, None],
        "size": 6,
        "chunks": [[3], None],
        "dims": ["time", None],
        "resizable": False,
    }
    structure["dims"] = ["time", "hit"]
    await server.create("r", "ragged", data_sources=[{"structure_family": "ragged", "structure": structure}])
    await server.ok("PUT", "/ragged/full/r", content=zip_of(array), headers=ZIP)
    assert awkward.array_equal(from_zip(await read(server, "/ragged/full/r")), array)
    assert len(orjson.loads(await read(server, "/ragged/full/r", "application/json"))[2]) == 5


async def test_rows_that_were_never_written_are_empty(server: Any) -> None:
    await ragged(server, "r", 3, [None, 2], [1, 2])
    assert orjson.loads(await read(server, "/ragged/full/r", "*/*")) == [[], [], []]
    await server.ok("PUT", "/ragged/block/r?block=1", content=zip_of(awkward.Array([[[1.0, 2.0]], []])), headers=ZIP)
    assert orjson.loads(await read(server, "/ragged/full/r", "*/*")) == [[], [[1.0, 2.0]], []]


async def test_ragged_arrays_in_other_formats(server: Any) -> None:
    rows = [[1.0, float("nan")], [], [3.0]]
    await ragged(server, "r", 3, [None])
    await server.ok("PUT", "/ragged/full/r", content=zip_of(awkward.Array(rows)), headers=ZIP)
    assert orjson.loads(await read(server, "/ragged/full/r?format=json")) == [[1.0, None], [], [3.0]]
    arrow = pyarrow.ipc.open_file(await read(server, "/ragged/full/r?format=arrow")).read_all()
    parquet = pyarrow.parquet.read_table(io.BytesIO(await read(server, "/ragged/full/r?format=parquet")))
    for table in (arrow, parquet):
        assert awkward.array_equal(awkward.from_arrow(table), awkward.Array(rows), equal_nan=True)
    status, detail = await server.refused("GET", "/ragged/full/r?slice=0,0&format=arrow")
    assert (status, "application/json" in detail) == (406, True)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (b"no zip", "not a zip"),
        (zip_of(awkward.Array([[1.0]]), form=False), "lacks the member 'form'"),
        (zip_of(awkward.Array([[1.0], []])), "2 rows; the structure says 3"),
        (zip_of(awkward.Array([[1], [], [2]])), "declared as float64, and int64"),
        (zip_of(awkward.Array([1.0, 2.0, 3.0])), "not deep enough"),
        (zip_of(awkward.Array([[[1.0]], [], []])), "deeper"),
        (zip_of(awkward.Array([["a"], [], []])), "deeper"),
        (zip_of(awkward.Array([[None, 1.0], [], []])), "another kind"),
        (zip_of(awkward.Array([{"x": 1.0}] * 3)), "not deep enough"),
    ],
)
async def test_what_does_not_fit_is_refused_and_emits_nothing(server: Any, what: bytes, said: str) -> None:
    await ragged(server, "r", 3, [None])
    status, detail = await server.refused("PUT", "/ragged/full/r", content=what, headers=ZIP)
    assert status == 422
    assert said in detail
    node = await server.assembly.services.browse.resolve(("r",))
    assert node.head == 0


async def test_buffers_that_contradict_each_other_are_refused(server: Any) -> None:
    good = zip_of(awkward.Array([[1.0], [], [2.0, 3.0]]))
    await ragged(server, "r", 3, [None])
    for offsets in ([0, 1, 1, 9], [0, 2, 1, 3], [-1, 1, 1, 3], [0, 1]):
        sink = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(sink, "w") as new:
            for name in old.namelist():
                new.writestr(name, numpy.array(offsets).tobytes() if name.endswith("offsets") else old.read(name))
        status, _ = await server.refused("PUT", "/ragged/full/r", content=sink.getvalue(), headers=ZIP)
        assert status == 422


async def test_a_small_body_cannot_be_a_large_one_in_disguise(server: Any) -> None:
    await ragged(server, "r", 3, [None])
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("node1-data", bytes(1 << 20))
    status, detail = await server.refused("PUT", "/ragged/full/r", content=sink.getvalue(), headers=ZIP)
    assert (status, "stored, not compressed" in detail) == (422, True)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("offset=2&shape=1&extend=true", 409, "must be 3"),
        ("offset=3&shape=1", 409, "Use ?extend=true"),
        ("offset=3&shape=1&extend=true&persist=false", 400, "both parameters"),
        ("offset=3&shape=2&extend=true", 422, "'shape' says 2"),
        ("offset=3&extend=true", 422, "needs 'offset'"),
    ],
)
async def test_appends_that_are_none(server: Any, path: str, status: int, said: str) -> None:
    await ragged(server, "r", 3, [None])
    answer = await server.refused("PATCH", f"/ragged/full/r?{path}", content=zip_of(awkward.Array([[1.0]])), headers=ZIP)
    assert answer[0] == status
    assert said in answer[1]


async def test_a_slice_that_cannot_be_taken(server: Any) -> None:
    await ragged(server, "r", 2, [None])
    await server.ok("PUT", "/ragged/full/r", content=zip_of(awkward.Array([[1.0], [2.0, 3.0]])), headers=ZIP)
    for text in (":,1", "5", "0,0,0", "a", "0:1:0", ":,x"):
        status, _ = await server.refused("GET", f"/ragged/full/r?slice={text}")
        assert status == 422


async def test_columns_of_lists_are_ragged(server: Any) -> None:
    table = pyarrow.table({"x": [[1.0], [2.0, 3.0], []], "even": [[1, 2], [3, 4], [5, 6]]})
    await server.table("t", table)
    await server.ok("PATCH", "/table/partition/t?partition=0", content=_arrow(table))
    attributes = (await server.ok("GET", "/metadata/t/x"))["data"]["attributes"]
    assert (attributes["structure_family"], attributes["structure"]["shape"]) == ("ragged", [6, None])
    assert orjson.loads(await read(server, "/ragged/full/t/x", "*/*")) == table.column("x").to_pylist() * 2
    assert orjson.loads(await read(server, "/ragged/full/t/x?slice=1,0", "*/*")) == 2.0
    even = (await server.ok("GET", "/metadata/t/even"))["data"]["attributes"]
    assert (even["structure_family"], even["structure"]["shape"]) == ("array", [6, 2])


@pytest.mark.parametrize("envelope", ["json", "msgpack"])
async def test_ragged_rows_are_streamed(server: Any, envelope: str) -> None:
    await ragged(server, "r", 2, [None])
    await server.ok("PUT", "/ragged/full/r", content=zip_of(awkward.Array([[1.0], []])), headers=ZIP)
    more = zip_of(awkward.Array([[2.0, 3.0]]))
    await server.ok("PATCH", "/ragged/full/r?offset=2&shape=1&extend=true", content=more, headers=ZIP)
    await server.ok("PUT", "/ragged/block/r?block=0&persist=false", content=zip_of(awkward.Array([[], [9.0]])), headers=ZIP)
    socket = await server.socket(f"r?envelope_format={envelope}&start=0").accepted()
    assert (await socket.update())["type"] == "ragged-schema"
    updates = [await socket.update() for _ in range(3)]
    assert [u["type"] for u in updates] == ["ragged-data"] * 3
    assert [(u["sequence"], u["shape"], u["offset"], u["block"]) for u in updates] == [
        (1, [2, None], None, None),
        (2, [1, None], [2], None),
        (3, [2, None], None, [0]),
    ]
    payloads = [u["payload"] if envelope == "json" else awkward.to_list(from_zip(u["payload"])) for u in updates]
    assert payloads == [[[1.0], []], [[2.0, 3.0]], [[], [9.0]]]
    assert orjson.loads(await read(server, "/ragged/full/r", "*/*")) == [[1.0], [], [2.0, 3.0]]


AWKWARD = [
    awkward.Array([[{"x": 1.1, "y": [1]}, {"x": 2.2, "y": [1, 2]}], [], [{"x": 3.3, "y": [1, 2, 3]}]]),
    awkward.Array(["one", "", "three"]),
    awkward.Array([1, None, 3]),
    awkward.Array([1, "two", [3.0]]),
    awkward.Array(numpy.arange(6).reshape(3, 2)),
    awkward.Array([]),
]


async def awkward_node(server: Any, path: str, array: awkward.Array) -> None:
    form, length, _ = awkward.to_buffers(awkward.to_packed(array))
    source = {"structure_family": "awkward", "structure": {"length": length, "form": form.to_dict()}, "management": "writable"}
    await server.create(path, "awkward", data_sources=[source])


@pytest.mark.parametrize("array", AWKWARD)
async def test_awkward_arrays_come_back(server: Any, array: awkward.Array) -> None:
    await awkward_node(server, "a", array)
    before = await server.client.get("/api/v1/awkward/full/a")
    assert before.status_code == (409 if awkward.to_buffers(array)[2] else 200)  # one without buffers is complete
    await server.ok("PUT", "/awkward/full/a", content=zip_of(array, form=False), headers=ZIP)
    assert orjson.loads(await read(server, "/awkward/full/a?format=json")) == awkward.to_list(array)
    structure = (await server.ok("GET", "/metadata/a"))["data"]["attributes"]["structure"]
    form = awkward.forms.from_dict(structure["form"])
    keys = sorted({name.rpartition("-")[0] for name in form.expected_from_buffers()})
    response = await server.client.post("/api/v1/awkward/buffers/a", json=keys)
    with zipfile.ZipFile(io.BytesIO(response.content)) as file:
        buffers = {name: file.read(name) for name in file.namelist()}
    found = awkward.from_buffers(form, structure["length"], {k: numpy.frombuffer(v, "u1") for k, v in buffers.items()})
    assert awkward.to_list(found) == awkward.to_list(array)


async def test_some_buffers_of_an_awkward_array(server: Any) -> None:
    await awkward_node(server, "a", AWKWARD[0])
    await server.ok("PUT", "/awkward/full/a", content=zip_of(AWKWARD[0], form=False), headers=ZIP)
    body = await read(server, "/awkward/buffers/a?form_key=node0&form_key=node2")
    assert zipfile.ZipFile(io.BytesIO(body)).namelist() == ["node0-offsets", "node2-data"]


async def test_awkward_arrays_that_are_none(server: Any) -> None:
    source = {"structure_family": "awkward", "structure": {"length": 1, "form": {"class": "Nothing"}}}
    body = {"id": "a", "structure_family": "awkward", "data_sources": [source]}
    assert (await server.refused("POST", "/metadata/", json=body))[0] == 422
    await awkward_node(server, "a", AWKWARD[0])
    for wrong in (zip_of(AWKWARD[1], form=False), b"", zip_of(AWKWARD[0][:1], form=False)):
        assert (await server.refused("PUT", "/awkward/full/a", content=wrong, headers=ZIP))[0] == 422
    socket = server.socket("a")
    assert (await socket.denied())[0] == 404


def _arrow(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def coordinates(dense: numpy.ndarray) -> bytes:
    """What clients send for a sparse array."""
    found = numpy.nonzero(dense)
    return _arrow(pyarrow.table({**{f"dim{n}": c for n, c in enumerate(found)}, "data": dense[found]}))


def densified(body: bytes, shape: tuple[int, ...], dtype: Any) -> numpy.ndarray:
    table = pyarrow.ipc.open_file(body).read_all()
    dense = numpy.zeros(shape, dtype)
    if not shape:
        return dense + sum(table.column("data").to_pylist())
    dense[tuple(table.column(f"dim{n}").to_numpy() for n in range(len(shape)))] = table.column("data").to_numpy()
    return dense


@pytest.mark.parametrize("seed", range(12))
async def test_sparse_arrays_equal_numpy(server: Any, seed: int) -> None:
    rng, random = numpy.random.default_rng(seed), Random(seed)
    chunks = [[random.randrange(1, 4) for _ in range(random.randrange(1, 3))] for _ in range(random.randrange(1, 4))]
    shape = tuple(map(sum, chunks))
    dtype = random.choice(["f8", "f4", "i8", "u2"])
    dense = (rng.random(shape) * 9 * (rng.random(shape) < 0.4)).astype(dtype)
    data_type = DOUBLE | {"kind": dtype[0], "itemsize": int(dtype[1])}
    structure = {"shape": shape, "chunks": chunks, "data_type": data_type, "coord_data_type": LONG, "dims": None, "layout": "COO"}
    await server.create("s", "sparse", data_sources=[{"structure_family": "sparse", "structure": structure}])
    headers = {"Content-Type": ARROW}
    if seed % 2:
        await server.ok("PUT", "/array/full/s", content=coordinates(dense), headers=headers)
    else:
        for block in numpy.ndindex(*map(len, chunks)):
            where = tuple(slice(sum(c[:i]), sum(c[: i + 1])) for c, i in zip(chunks, block, strict=True))
            path = "/array/block/s?block=" + ",".join(map(str, block))
            await server.ok("PUT", path, content=coordinates(dense[where]), headers=headers)
            assert (densified(await read(server, path, ARROW), dense[where].shape, dtype) == dense[where]).all()
    assert (densified(await read(server, "/array/full/s", ARROW), shape, dtype) == dense).all()
    for _ in range(12):
        index = tuple(
            random.randrange(-n, n)
            if random.random() < 0.3
            else slice(random.randrange(-n, n), random.randrange(-n, n + 2), random.choice([1, 2, -1]))
            for n in shape[: random.randrange(1, len(shape) + 1)]
        )
        text = ",".join(str(i) if isinstance(i, int) else f"{i.start}:{i.stop}:{i.step}" for i in index)
        wanted = numpy.asarray(dense[index])
        found = await read(server, f"/array/full/s?slice={text}", ARROW)
        assert (densified(found, wanted.shape, dtype) == wanted).all(), text


async def test_sparse_arrays_that_are_none(server: Any) -> None:
    structure = {"shape": [4, 4], "chunks": [[4], [4]], "data_type": DOUBLE, "dims": None}
    await server.create("s", "sparse", data_sources=[{"structure_family": "sparse", "structure": structure}])
    for columns, said in (
        ({"dim0": [0], "data": [1.0]}, "lacks the column 'dim1'"),
        ({"dim0": [4], "dim1": [0], "data": [1.0]}, "out of range"),
        ({"dim0": [-1], "dim1": [0], "data": [1.0]}, "out of range"),
        ({"dim0": [0.5], "dim1": [0], "data": [1.0]}, "integers"),
        ({"dim0": [0], "dim1": [0], "data": ["x"]}, "numbers"),
        ({"dim0": [0], "dim1": [0], "data": pyarrow.array([None], pyarrow.float64())}, "nulls"),
    ):
        body, headers = _arrow(pyarrow.table(columns)), {"Content-Type": ARROW}
        status, detail = await server.refused("PUT", "/array/full/s", content=body, headers=headers)
        assert (status, said in detail) == (422, True), detail
    assert (await server.refused("PUT", "/array/full/s", content=bytes(128)))[0] == 404


@pytest.mark.parametrize("envelope", ["json", "msgpack"])
async def test_sparse_elements_are_streamed(server: Any, envelope: str) -> None:
    structure = {"shape": [2], "chunks": [[2]], "data_type": DOUBLE, "dims": None}
    await server.create("s", "sparse", data_sources=[{"structure_family": "sparse", "structure": structure}])
    body = coordinates(numpy.array([0.0, 2.5]))
    await server.ok("PUT", "/array/full/s", content=body, headers={"Content-Type": ARROW})
    await server.ok("DELETE", "/stream/close/s")
    socket = await server.socket(f"s?envelope_format={envelope}&start=0").accepted()
    epoch = server.assembly.services.log.epoch
    assert await socket.update() == {"type": "array-schema", "version": 1, "data_type": DOUBLE, "epoch": epoch}
    update = await socket.update()
    assert (update["type"], update["mimetype"], update["shape"]) == ("array-data", ARROW, [2])
    if envelope == "json":
        assert update["payload"] == {"dim0": [1], "data": [2.5]}
    else:
        assert (densified(update["payload"], (2,), "f8") == [0.0, 2.5]).all()


async def test_what_is_deleted_leaves_no_files(server: Any) -> None:
    await ragged(server, "r", 1, [None])
    await server.ok("PUT", "/ragged/full/r", content=zip_of(awkward.Array([[1.0]])), headers=ZIP | {"X-Tiled-Ack": "persisted"})
    root = server.assembly.places.arrays
    assert list(root.rglob("block-0.zip"))
    await server.ok("DELETE", "/metadata/r?external_only=false", headers={"X-Tiled-Ack": "persisted"})
    assert not list(root.rglob("block-0.zip"))
