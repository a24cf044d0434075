"""The tree as Zarr: what the zarr library reads over HTTP equals numpy, in both versions of the format."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import numpy
import pytest
import zarr
from tiled.client import from_uri
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

import tiled_stream

ARRAYS: dict[str, numpy.ndarray] = {
    "bool": numpy.array([True, False, True]),
    "i8": numpy.arange(-3, 3),
    "big": numpy.arange(5, dtype=">i4"),
    "u2": numpy.arange(12, dtype="u2").reshape(3, 4),
    "f4": numpy.linspace(0, 1, 7, dtype="f4"),
    "c8": (numpy.arange(3) + 1j).astype("c8"),
    "S": numpy.array([b"one", b"", b"three"]),
    "U": numpy.array(["one", "", "drei€"]),
    "M": numpy.array(["2026-11-23", "NaT"], "M8[ns]"),
    "m": numpy.array([5, -7], "m8[s]"),
    "scalar": numpy.array(3.5),
    "cube": numpy.arange(2 * 3 * 4.0).reshape(2, 3, 4),
    "nothing": numpy.zeros((0, 3)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[tiled_stream.SimpleTiledServer]:
    with tiled_stream.SimpleTiledServer(api_key="secret") as server:
        client = from_uri(server.uri)
        group = client.create_container("group", metadata={"attributes": {"made": "here"}, "other": 1})
        for key, array in ARRAYS.items():
            group.write_array(array, key=key)
        tiles = numpy.arange(7 * 5).reshape(7, 5)
        ragged_edges = group.write_array(tiles[:3, :2], key="tiles")
        ragged_edges.patch(tiles[3:, :2], offset=(3, 0), extend=True)
        group.write_table({"x": [1.0, 2.0], "s": ["a", "b"]}, key="table")
        yield server
        client.context.http_client.close()


class Remote(Store):
    """A store that asks a server, as others do over HTTP, and leaves no connection behind."""

    supports_writes = supports_deletes = False
    supports_listing = True

    def __init__(self, url: str, key: str) -> None:
        super().__init__(read_only=True)
        self.url, self.headers = url, {"Authorization": f"Apikey {key}"}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self.url == other.url

    def _ask(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}/{path}".rstrip("/"), headers=self.headers)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        assert byte_range is None
        response = await asyncio.to_thread(self._ask, key)
        assert response.status_code in (200, 404), response.text
        return prototype.buffer.from_bytes(response.content) if response.status_code == 200 else None

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
        raise NotImplementedError

    async def exists(self, key: str) -> bool:
        return (await asyncio.to_thread(self._ask, key)).status_code == 200

    async def list_dir(self, prefix: str) -> Any:
        for url in (await asyncio.to_thread(self._ask, prefix)).json():
            yield url.rpartition("/")[2]

    async def list(self) -> Any:
        raise NotImplementedError

    async def list_prefix(self, prefix: str) -> Any:
        raise NotImplementedError

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError


def root(server: tiled_stream.SimpleTiledServer, version: int) -> zarr.Group:
    return zarr.open_group(Remote(f"http://127.0.0.1:{server.port}/zarr/v{version}", "secret"), mode="r", zarr_format=version)


@pytest.fixture
def quiet() -> Iterator[None]:
    """The library warns of types whose names are not settled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("version", [2, 3])
def test_the_library_reads_what_was_written(server: tiled_stream.SimpleTiledServer, version: int) -> None:
    group: Any = root(server, version)["group"]
    for key, array in ARRAYS.items():
        found = numpy.asarray(group[key][...])
        assert found.shape == array.shape, key
        assert numpy.array_equal(found, array, equal_nan=array.dtype.kind in "fcmM"), key
    assert numpy.array_equal(group["tiles"][...], numpy.arange(35).reshape(7, 5)[:, :2])
    assert numpy.array_equal(group["cube"][1, :, ::2], ARRAYS["cube"][1, :, ::2])
    assert group["table"]["x"][...].tolist() == [1.0, 2.0]
    assert group["table"]["s"][...].tolist() == ["a", "b"]
    assert dict(group.attrs)["made"] == "here" if version == 2 else dict(group.attrs)["other"] == 1


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("version", [2, 3])
def test_groups_can_be_listed(server: tiled_stream.SimpleTiledServer, version: int) -> None:
    assert list(root(server, version).keys()) == ["group"]
    assert set(root(server, version)["group"].keys()) == {*ARRAYS, "tiles", "table"}


def get(server: tiled_stream.SimpleTiledServer, path: str, key: str = "secret") -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{server.port}/zarr/{path}", headers={"Authorization": f"Apikey {key}"} if key else {})


@pytest.mark.parametrize(
    "path", ["v2/.zgroup", "v2/group/.zattrs", "v2/group/i8/0", "v3/zarr.json", "v3/group/i8/c/0", "v2", "v3/group"]
)
def test_the_same_credentials_as_everything_else(server: tiled_stream.SimpleTiledServer, path: str) -> None:
    assert get(server, path).status_code == 200
    assert get(server, path, "wrong").status_code == 401
    assert get(server, path, "").status_code == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("v2/nothing/.zarray", 404),
        ("v2/group/.zarray", 404),
        ("v2/group/i8/.zgroup", 404),
        ("v3/group/i8/.zarray", 404),
        ("v3/nothing/zarr.json", 404),
        ("v2/group/u2/0", 422),
        ("v3/group/u2/c/0", 422),
        ("v2/group/u2/0.0.0", 422),
        ("v2/group/5", 404),
    ],
)
def test_what_is_not_there(server: tiled_stream.SimpleTiledServer, path: str, status: int) -> None:
    response = get(server, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"


def test_beyond_the_end_there_are_zeros(server: tiled_stream.SimpleTiledServer) -> None:
    from numcodecs import Blosc

    assert numpy.frombuffer(Blosc().decode(get(server, "v2/group/i8/9").content), "i8").tolist() == [0] * 6


def test_a_node_may_be_called_like_a_chunk(server: tiled_stream.SimpleTiledServer) -> None:
    client = from_uri(server.uri)
    client.create_container("7").write_array([1], key="c")
    assert get(server, "v2/7/.zgroup").json() == {"zarr_format": 2}
    assert get(server, "v2/7").json() == [f"http://127.0.0.1:{server.port}/zarr/v2/7/c"]
    assert get(server, "v3/7/c/zarr.json").json()["node_type"] == "array"
    assert get(server, "v3/7/c/c/0").status_code == 200
    client.delete_contents("7", recursive=True, external_only=False)
    client.context.http_client.close()
