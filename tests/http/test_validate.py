"""Validation of a run: what the files hold against what was declared, with and without correction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy
import pytest

from tests.http.conftest import array_structure

FRAMES = numpy.arange(3 * 4 * 5, dtype="<i8").reshape(3, 4, 5)


async def run(server: Any, directory: Path, declared: numpy.ndarray, *, name: str = "frames.h5", **fields: Any) -> None:
    """A run with one stream and one registered array, declared like `declared`; the file holds `FRAMES`."""
    with h5py.File(directory / "frames.h5", "w") as file:
        file["data"] = FRAMES
    await server.create("run", specs=[{"name": "BlueskyRun", "version": "3.0"}])
    await server.create("run/primary", specs=[{"name": "BlueskyEventStream", "version": "3.0"}])
    source = {
        "structure_family": "array",
        "structure": array_structure(declared) | fields.pop("structure", {}),
        "mimetype": "application/x-hdf5",
        "parameters": {"dataset": "data"},
        "management": "external",
        "assets": [
            {"data_uri": f"file://localhost{directory / name}", "is_directory": False, "parameter": "data_uris", "num": 0}
        ],
    }
    body = {"id": "det", "structure_family": "array", "data_sources": [source], "metadata": {}, **fields}
    await server.ok("POST", "/register/run/primary", json=body)


async def validated(server: Any, query: str = "", ignore: list[str] | None = None) -> Any:
    response = await server.client.post(f"/custom/validate/run{query}", json={"ignore_errors": ignore})
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_run_whose_files_are_what_was_declared(serve: Any, tmp_path: Path) -> None:
    async with serve(read=(str(tmp_path),)) as server:
        await run(server, tmp_path, FRAMES)
        assert await validated(server, "?fix=true&read=true") == {"valid": True, "notes": []}


@pytest.mark.parametrize(
    ("declared", "fields", "said"),
    [
        (FRAMES[:, :2], {}, "shape mismatch: (3, 2, 5) -> (3, 4, 5)"),
        (FRAMES.astype("<i4"), {}, "dtype mismatch: int32 -> int64"),
        (FRAMES, {"structure": {"dims": ["time", "y", "x", "more"]}}, "dimension names"),
        (FRAMES[:2], {"metadata": {"frame_per_point": 1}}, "(2, 4, 5) -> (3, 1, 4, 5)"),
    ],
)
async def test_a_wrong_declaration_is_told_and_corrected(
    serve: Any, tmp_path: Path, declared: numpy.ndarray, fields: dict[str, Any], said: str
) -> None:
    async with serve(read=(str(tmp_path),)) as server:
        await run(server, tmp_path, declared, **fields)
        first = await validated(server)
        assert (first["valid"], "mismatch" in first["notes"][0]) == (False, True)
        fixed = await validated(server, "?fix=true&read=true")
        assert fixed["valid"]
        assert said in fixed["notes"][0]
        assert await validated(server, "?fix=true&read=true") == {"valid": True, "notes": []}
        response = await server.client.get("/api/v1/array/full/run/primary/det")
        assert response.content == FRAMES.tobytes()


async def test_a_missing_file_is_a_fault_that_can_be_ignored(serve: Any, tmp_path: Path) -> None:
    async with serve(read=(str(tmp_path),)) as server:
        await run(server, tmp_path, FRAMES, name="gone.h5")
        found = await validated(server, "?fix=true&read=true")
        assert not found["valid"]
        assert "FileNotFoundError" in found["notes"][-1]
        assert str(tmp_path) in found["notes"][-1]
        ignored = await validated(server, "?fix=true&read=true", ["FileNotFoundError"])
        assert (ignored["valid"], len(ignored["notes"])) == (True, 1)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(", "x" * 1000, r"(.)\1"])
async def test_patterns_that_could_take_for_ever_are_refused(serve: Any, tmp_path: Path, pattern: str) -> None:
    async with serve(read=(str(tmp_path),)) as server:
        await run(server, tmp_path, FRAMES)
        response = await server.client.post("/custom/validate/run", json={"ignore_errors": [pattern]})
        assert response.status_code == 422


async def test_sizes_of_files_are_filled_in(serve: Any, tmp_path: Path) -> None:
    async with serve(read=(str(tmp_path),)) as server:
        await run(server, tmp_path, FRAMES)
        await validated(server, "?fix=true")
        found = await server.ok("GET", "/metadata/run/primary/det?include_data_sources=true")
        (asset,) = found["data"]["attributes"]["data_sources"][0]["assets"]
        assert asset["size"] == (tmp_path / "frames.h5").stat().st_size
