"""Updates of every family, written over HTTP as others do it and decoded by the client; and the types that a checker sees."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward
import httpx
import numpy
import pyarrow
import pytest

from tests.client.served import KEY, Served, arrow_file, served
from tiled_stream.client import ArrayRef, Event, Live, RaggedData, SparseData, subscribe, subscribe_sync
from tiled_stream.domain.errors import NotFound

Name = Callable[[str], str]
DOUBLE = {"endianness": "little", "kind": "f", "itemsize": 8, "dt_units": None}
NPY = "multipart/related;type=application/x-npy"


def http(server: Served) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}/api/v1", headers={"Authorization": f"Apikey {KEY}"})


def create(client: httpx.Client, key: str, family: str, structure: dict[str, Any], **source: Any) -> dict[str, Any]:
    sources = [{"structure_family": family, "structure": structure, **source}]
    body = {"id": key, "structure_family": family, "metadata": {}, "specs": [], "data_sources": sources}
    reply: dict[str, Any] = client.post("/metadata/", json=body).raise_for_status().json()
    return reply


def seen(server: Served, name: str) -> list[Event]:
    with subscribe_sync(server.uri, name, start=0) as events:
        return [event for event in events if not isinstance(event, Live)][:-1]


async def test_cells_in_files(tmp_path: Path) -> None:
    """As a detector writes: a file, then the word that it is there. Only the new cells are fetched."""
    frames = numpy.arange(24.0).reshape(3, 2, 4)
    structure = {"data_type": DOUBLE, "dims": None, "resizable": False}
    with served(read=(str(tmp_path),)) as server, http(server) as client:
        at_first = structure | {"shape": [0, 2, 4], "chunks": [[], [2], [4]]}
        known = create(client, "a", "array", at_first, mimetype=NPY, management="external")["data_sources"][0]
        for n in range(3):
            numpy.save(tmp_path / f"{n}.npy", frames[n])
            asset = {"data_uri": (tmp_path / f"{n}.npy").as_uri(), "is_directory": False, "parameter": "data_uris", "num": n}
            grown = structure | {"shape": [n + 1, 2, 4], "chunks": [[1] * (n + 1), [2], [4]]}
            source = {"id": known["id"], "structure_family": "array", "structure": grown, "mimetype": NPY, "assets": [asset]}
            url = f"/data_source/a?patch_shape=1,2,4&patch_offset={n},0,0"
            client.put(url, json={"data_source": source | {"management": "external"}}).raise_for_status()
        client.delete("/stream/close/a").raise_for_status()
        found = []
        async with subscribe(server.uri, "a", start=0) as events:
            async for event in events:
                if isinstance(event, ArrayRef):
                    fetched = await event.fetch()
                    assert (fetched == event.fetch_sync()).all()
                    assert (event.patch_offset, event.patch_shape) == ((len(found), 0, 0), (1, 2, 4))
                    found.append(fetched)
        assert (numpy.concatenate(found) == frames).all()
        last = next(event for event in reversed(seen(server, "a")) if isinstance(event, ArrayRef))
        client.delete("/metadata/a?external_only=false").raise_for_status()
        with pytest.raises(NotFound):
            await last.fetch()


def archive(rows: list[list[float]]) -> bytes:
    """As clients send ragged rows: the buffers of awkward, its form and the length."""
    form, length, buffers = awkward.to_buffers(awkward.to_packed(awkward.Array(rows)))
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for name, buffer in buffers.items():
            file.writestr(name, numpy.ascontiguousarray(buffer).tobytes())
        file.writestr("length", length.to_bytes(8, "big"))
        file.writestr("form", json.dumps(form.to_json()))
    return sink.getvalue()


def test_ragged_rows(server: Served, fresh: Name) -> None:
    name, rows = fresh("ragged"), [[1.0], [], [2.0, 3.0]]
    structure = {"shape": [3, None], "chunks": [[3], None], "data_type": DOUBLE, "size": 3}
    with http(server) as client:
        create(client, name, "ragged", structure)
        client.put(f"/ragged/full/{name}", content=archive(rows), headers={"Content-Type": "application/zip"}).raise_for_status()
        client.delete(f"/stream/close/{name}").raise_for_status()
    (event,) = seen(server, name)
    assert isinstance(event, RaggedData)
    assert (event.shape, event.array.to_list()) == ((3, None), rows)


def test_sparse_elements(server: Served, fresh: Name) -> None:
    name = fresh("sparse")
    structure = {"shape": [2, 3], "chunks": [[2], [3]], "data_type": DOUBLE, "dims": None}
    body = arrow_file(pyarrow.table({"dim0": [0, 1], "dim1": [2, 0], "data": [2.5, -1.0]}))
    with http(server) as client:
        create(client, name, "sparse", structure)
        client.put(
            f"/array/full/{name}", content=body, headers={"Content-Type": "application/vnd.apache.arrow.file"}
        ).raise_for_status()
        client.delete(f"/stream/close/{name}").raise_for_status()
    (event,) = seen(server, name)
    assert isinstance(event, SparseData)
    assert (event.coordinates.tolist(), event.elements.tolist()) == ([[0, 1], [2, 0]], [2.5, -1.0])
    assert event.array.tolist() == [[0, 0, 2.5], [-1.0, 0, 0]]


PROGRAM = """
import numpy, pyarrow
from tiled_stream.client import *

async def main() -> None:
    async with subscribe("http://h", ["a"], start=0, columns=["x"], max_hz=2) as events:
        async for event in events:
            reveal_type(event)
            match event:
                case ArrayData():
                    reveal_type(event.array)
                case ArrayRef():
                    reveal_type(await event.fetch())
                case Gap():
                    reveal_type(event.first)
        async for columns in events.table("x"):
            reveal_type(columns["x"])
    async with watch("http://h", token=lambda: "t", retry=Retry(give_up_seconds=None)) as socket:
        reveal_type(await socket.subscribe("b", subtree=True))

def blocking() -> None:
    with subscribe_sync("http://h", "a") as events:
        for event in events:
            reveal_type(event)
        for columns in events.table("x"):
            reveal_type(len(columns))
"""
WRONG = """
from tiled_stream.client import subscribe, watch
subscribe("http://h", "a", start="0")
subscribe("http://h", "a", begin=0)
watch("http://h", subtree=True)
"""


def checked(program: str, directory: Path) -> list[str]:
    """What the strict checker says, line by line."""
    path = directory / "program.py"
    path.write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "--follow-imports=silent"]
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [*command, "--config-file", str(root / "pyproject.toml"), "--cache-dir", str(directory / "cache"), str(path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return [line.split(": ", 1)[1] for line in run.stdout.splitlines() if "program.py" in line]


def test_types(tmp_path: Path) -> None:
    """Nothing of it is Any; a wrong option is an error before the program runs."""
    said = checked(PROGRAM, tmp_path)
    assert [line for line in said if not line.startswith("note: Revealed type is")] == []
    revealed = [line.split('"')[1] for line in said]
    event = "tiled_stream.client.events.Event"
    assert [revealed[0], revealed[3], revealed[5:]] == [
        event,
        "int | None",
        ["tiled_stream.client.subscription.Subscription", event, "int"],
    ]
    for array in (revealed[1], revealed[2], revealed[4]):
        assert array.startswith("numpy.ndarray[")
    assert len([line for line in checked(WRONG, tmp_path) if line.startswith("error")]) == 3
