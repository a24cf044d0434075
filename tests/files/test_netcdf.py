"""NetCDF files that xarray wrote, compared with what xarray reads without decoding."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import h5py
import numpy
import pytest
import xarray

from tiled_stream.domain.errors import Forbidden, NotFound, NotSupported
from tiled_stream.domain.nodes import Spec
from tiled_stream.domain.slices import whole
from tiled_stream.domain.structures import ArrayStructure
from tiled_stream.files.formats import open_array, open_tree
from tiled_stream.files.port import Source
from tiled_stream.files.wall import Wall
from tiled_stream.testing.reader_contract import LIMIT, uri

MIMETYPE = "application/x-netcdf"


def source(path: Path, **fields: Any) -> Source:
    options = {"wall": Wall([path.parent]), "now": time.time(), "limit": LIMIT, "uris": (uri(path),), **fields}
    return Source(mimetype=MIMETYPE, **{"structure": None, **options})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A dataset with coordinates of dimensions, others, a bare dimension, and times."""
    dataset = xarray.Dataset(
        {
            "temperature": (("time", "x"), numpy.arange(6.0).reshape(2, 3), {"units": "K", "valid": [0, 9]}),
            "label": (("bare",), numpy.array([1, 2, 3, 4], "i2")),
            "scalar": ((), 5),
        },
        coords={
            "time": numpy.array(["2026-01-01", "2026-01-02"], "M8[ns]"),
            "x": [10, 20, 30],
            "height": (("x",), [1.0, 2.0, 3.0]),
        },
        attrs={"title": "a test"},
    )
    dataset.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    return tmp_path / "x.nc"


def test_what_a_dataset_is_told_as(path: Path) -> None:
    tree = open_tree(source(path))
    entry, _ = tree.look(())
    assert (entry.family, entry.count, entry.metadata) == ("container", 6, {"attrs": {"title": "a test"}})
    assert entry.specs == (Spec("xarray_dataset"),)
    children = dict(tree.page((), offset=0, limit=10, backwards=False).children)
    coordinates = {name for name, child in children.items() if child is not None and child.specs == (Spec("xarray_coord"),)}
    assert coordinates == {"time", "x", "height"}
    wanted = xarray.load_dataset(path, engine="h5netcdf", decode_cf=False)
    assert set(children) == set(wanted.variables)
    for name, child in children.items():
        assert child is not None
        assert isinstance(child.structure, ArrayStructure)
        assert child.structure.shape == (wanted[name].shape or (1,))
        assert child.structure.dims == (wanted[name].dims or None)
        reader = open_array(source(path, structure=child.structure, inside=(name,)))
        values = reader.read(whole(child.structure.shape))
        assert numpy.array_equal(values.reshape(wanted[name].shape), wanted[name].values, equal_nan=True)
        assert values.dtype == wanted[name].dtype
        told = {k: str(numpy.squeeze(v).tolist()) for k, v in child.metadata["attrs"].items()}
        assert told == {k: str(numpy.squeeze(v).tolist()) for k, v in wanted[name].attrs.items()}


def test_what_is_none(path: Path, tmp_path: Path) -> None:
    tree = open_tree(source(path))
    for keys in (("bare",), ("nothing",), ("x", "y")):
        with pytest.raises(NotFound):
            tree.look(keys)
    (tmp_path / "classic.nc").write_bytes(b"CDF\x01" + bytes(40))
    with pytest.raises(NotSupported, match="classic"):
        open_tree(source(tmp_path / "classic.nc")).look(())


def test_links_do_not_lead_out(path: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "y.nc", "w") as file:
        file["out"] = h5py.ExternalLink("../x.nc", "/x")
        file["bytes"] = numpy.arange(3)
    inner = tmp_path / "in" / "y.nc"
    tree = open_tree(source(inner))
    assert [name for name, _ in tree.page((), offset=0, limit=9, backwards=False).children] == ["bytes"]
    with pytest.raises(Forbidden):
        tree.look(("out",))
