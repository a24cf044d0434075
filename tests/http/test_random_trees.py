"""Random files of HDF5 and Zarr, walked through the edge: what comes out is what was put in, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy
import pytest
import zarr

from tests.http.test_assets import asset
from tests.http.test_files_inside import register
from tiled_stream.testing.array_contract import cells, selections

DTYPES = ("|b1", "|i1", "<i2", ">u2", "<i4", "<u8", "<f4", ">f8", "<c8", "|S5")
NAMES = ("a", "b c", "ü", "%25", "x.y", "{0}", "data?", "#1")


class Made:
    """What was put into a file: children by key, or values; and the attributes."""

    def __init__(self, random: Random, depth: int, dtypes: tuple[str, ...]) -> None:
        self.attributes = {f"k{n}": random.choice([1, 2.5, "text", [1, 2, 3], True]) for n in range(random.randint(0, 2))}
        self.children: dict[str, Made] | None = None
        self.values: Any = None
        if depth and random.random() < 0.6:
            names = random.sample(NAMES, random.randint(0, 5))
            self.children = {name: Made(random, depth - 1, dtypes) for name in names}
        else:
            shape = tuple(random.randint(1, 6) for _ in range(random.randint(1, 3)))
            self.values = cells(numpy.dtype(random.choice(dtypes)), shape, random)


def to_hdf5(made: Made, place: Any, random: Random) -> None:
    for name, value in made.attributes.items():
        place.attrs[name] = value
    for key, child in (made.children or {}).items():
        if child.children is None:
            chunks = tuple(random.randint(1, n) for n in child.values.shape) if random.random() < 0.5 else None
            inner = place.create_dataset(key, data=child.values, chunks=chunks)
        else:
            inner = place.create_group(key)
        to_hdf5(child, inner, random)


def to_zarr(made: Made, place: Any, random: Random) -> None:
    place.attrs.update(made.attributes)
    for key, child in (made.children or {}).items():
        if child.children is None:
            chunks = tuple(random.randint(1, n) for n in child.values.shape)
            inner = place.create_array(key, shape=child.values.shape, dtype=child.values.dtype, chunks=chunks)
            inner[...] = child.values
        else:
            inner = place.create_group(key)
        to_zarr(child, inner, random)


@pytest.fixture
async def server(tmp_path: Path, serve: Callable[..., AbstractAsyncContextManager[Any]]) -> AsyncIterator[Any]:
    async with serve(read=(str(tmp_path),)) as server:
        yield server


async def assert_same(server: Any, made: Made, resource: Any, random: Random) -> None:
    told = resource["attributes"]
    assert told["metadata"] == made.attributes
    if made.children is None:
        assert told["structure"]["shape"] == list(made.values.shape)
        link = resource["links"]["full"]
        kind, order = told["structure"]["data_type"], {"little": "<", "big": ">", "not_applicable": "|"}
        dtype = numpy.dtype(f"{order[kind['endianness']]}{kind['kind']}{kind['itemsize']}")
        assert dtype == made.values.dtype or dtype.newbyteorder() == made.values.dtype
        for selection in (None, selections(made.values.shape, random)):
            wanted = made.values if selection is None else made.values[(..., *selection.index)]
            parts = "" if selection is None else "?slice=" + ",".join(map(text_of, selection.index))
            answer = await server.client.get(link + parts, headers={"Accept": "application/octet-stream"})
            assert answer.status_code == 200, answer.text
            assert answer.content == wanted.astype(dtype).tobytes()
        return
    listing = await server.ok("GET", resource["links"]["search"].removeprefix("http://server/api/v1"))
    assert {r["id"] for r in listing["data"]} == set(made.children)
    assert listing["meta"]["count"] == told["structure"]["count"] == len(made.children)
    for child in listing["data"]:
        alone = await server.ok("GET", child["links"]["self"].removeprefix("http://server/api/v1"))
        contents = (alone["data"]["attributes"]["structure"] or {}).pop("contents", None)
        (child["attributes"]["structure"] or {}).pop("contents", None)
        assert alone["data"] == child
        below = made.children[child["id"]].children
        assert contents is None if below is None else set(contents) == set(below)
        await assert_same(server, made.children[child["id"]], child, random)


def text_of(index: int | slice) -> str:
    if isinstance(index, int):
        return str(index)
    return ":".join("" if n is None else str(n) for n in (index.start, index.stop, index.step))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["hdf5", "zarr2", "zarr3"])
async def test_what_was_put_in_comes_out(server: Any, tmp_path: Path, kind: str, seed: int) -> None:
    random = Random(f"{kind} {seed}")
    dtypes = DTYPES[:-1] if kind == "zarr3" else DTYPES  # it has no stable name for texts
    top = Made(random, 0, dtypes)
    top.children = {"top": Made(random, 3, dtypes), "other": Made(random, 2, dtypes)}
    if kind == "hdf5":
        with h5py.File(tmp_path / "x", "w", libver=random.choice(["earliest", "latest"])) as file:
            to_hdf5(top, file, random)
        mimetype = "application/x-hdf5"
    else:
        to_zarr(top, zarr.open_group(tmp_path / "x", mode="w", zarr_format=int(kind[-1])), random)
        mimetype = "application/x-zarr"
    await register(server, "x", asset(tmp_path / "x", None, is_directory=kind != "hdf5"), mimetype=mimetype)
    for key, child in top.children.items():
        resource = (await server.ok("GET", f"/metadata/x/{key}"))["data"]
        await assert_same(server, child, resource, random)
