"""Structures and data sources on the wire: every key out, every fault named in."""

from __future__ import annotations

from typing import Any

import numpy
import orjson
import pyarrow
import pytest

from tiled_stream.domain.dtypes import from_numpy
from tiled_stream.domain.errors import Malformed, Refused
from tiled_stream.domain.nodes import Asset, DataSource
from tiled_stream.domain.structures import ArrayStructure
from tiled_stream.wire.structures import data_source_to_wire, structure_from_wire, structure_to_wire
from tiled_stream.wire.tables import structure_of

FLOAT = {"endianness": "little", "kind": "f", "itemsize": 8, "dt_units": None}
ARRAY = {"data_type": FLOAT, "chunks": [[2, 2, 1], [20]], "shape": [5, 20], "dims": ["time", "dim_int_1"], "resizable": False}
RECORD = {
    "data_type": {
        "itemsize": 20,
        "fields": [
            {"name": "a", "dtype": FLOAT, "shape": None},
            {"name": "b", "dtype": {"endianness": "big", "kind": "i", "itemsize": 4, "dt_units": None}, "shape": [3]},
        ],
    },
    "chunks": [],
    "shape": [],
    "dims": None,
    "resizable": False,
}
SCHEMA = structure_of(pyarrow.schema([("x", pyarrow.int64()), ("y", pyarrow.string())])).arrow_schema
TABLE = {"arrow_schema": SCHEMA, "npartitions": 1, "columns": ["x", "y"], "resizable": False}


@pytest.mark.parametrize(("family", "wire"), [("array", ARRAY), ("array", RECORD), ("table", TABLE)])
def test_round_trip(family: str, wire: dict[str, Any]) -> None:
    assert orjson.loads(orjson.dumps(structure_to_wire(structure_from_wire(family, wire)))) == wire


def test_what_a_client_may_leave_out() -> None:
    short = {key: ARRAY[key] for key in ("data_type", "chunks", "shape")} | {"family": "table", "more": 1}
    structure = structure_from_wire("array", short)
    assert isinstance(structure, ArrayStructure)
    assert (structure.dims, structure.resizable, structure.shape) == (None, False, (5, 20))


def test_numpy_types_on_the_wire() -> None:
    wire = structure_to_wire(ArrayStructure(from_numpy(numpy.dtype("<M8[ns]")), ((0,), (3,)), (0, 3)))
    assert wire["data_type"] == {"endianness": "little", "kind": "M", "itemsize": 8, "dt_units": "[ns]"}


@pytest.mark.parametrize("family", ["container", "bytes"])
def test_families_without_a_structure(family: str) -> None:
    assert structure_from_wire(family, {"keys": []}) is None
    assert structure_to_wire(None, family) == ({} if family == "bytes" else None)


@pytest.mark.parametrize(
    ("family", "wrong", "place"),
    [
        ("array", None, "structure"),
        ("array", [], "structure"),
        ("array", {}, "data_type"),
        ("array", ARRAY | {"shape": "5"}, r"\$\.shape"),
        ("array", ARRAY | {"shape": [5, None]}, r"\$\.shape\[1\]"),
        ("array", ARRAY | {"shape": [5.5, 20]}, r"\$\.shape"),
        ("array", ARRAY | {"shape": [5, 21]}, "Axis 1"),
        ("array", ARRAY | {"chunks": [[2, 2, 1], ["20"]]}, r"\$\.chunks"),
        ("array", ARRAY | {"chunks": [[2, 2, 1]]}, "axes"),
        ("array", ARRAY | {"dims": ["x"]}, "dimensions"),
        ("array", ARRAY | {"dims": [1, 2]}, r"\$\.dims"),
        ("array", ARRAY | {"resizable": "no"}, r"\$\.resizable"),
        ("array", ARRAY | {"data_type": "f8"}, r"\$\.data_type"),
        ("array", ARRAY | {"data_type": {"kind": "f"}}, "itemsize"),
        ("array", ARRAY | {"data_type": FLOAT | {"kind": "O"}}, "objects"),
        ("array", ARRAY | {"data_type": FLOAT | {"endianness": "middle"}}, "endianness"),
        ("array", ARRAY | {"data_type": {"itemsize": 8, "fields": [{"name": "a"}]}}, "dtype"),
        ("table", {}, "arrow_schema"),
        ("table", TABLE | {"columns": None}, r"\$\.columns"),
        ("table", TABLE | {"npartitions": 0}, "npartitions"),
        ("table", TABLE | {"arrow_schema": "AAAA"}, "arrow_schema"),
        ("table", TABLE | {"columns": ["x", "_y"]}, "_y"),
    ],
)
def test_faults_are_named(family: str, wrong: Any, place: str) -> None:
    with pytest.raises(Malformed, match=place):
        structure_from_wire(family, wrong)


def test_a_data_source_has_all_its_keys() -> None:
    asset = Asset("file://localhost/d/x.npy", False, "data_uri", size=224, id=5)
    source = DataSource("array", ArrayStructure(from_numpy(numpy.dtype("<f8")), (), ()), "application/x-npy", 5, assets=(asset,))
    assert orjson.loads(orjson.dumps(data_source_to_wire(source))) == {
        "id": 5,
        "structure_family": "array",
        "structure": {"data_type": FLOAT, "chunks": [], "shape": [], "dims": None, "resizable": False},
        "mimetype": "application/x-npy",
        "parameters": {},
        "properties": {},
        "management": "writable",
        "assets": [
            {
                "data_uri": "file://localhost/d/x.npy",
                "is_directory": False,
                "size": 224,
                "parameter": "data_uri",
                "num": None,
                "id": 5,
            }
        ],
    }


@pytest.mark.parametrize("key", list(ARRAY))
@pytest.mark.parametrize("value", [None, 1, -1, 2**70, 0.5, "x", [], [[]], [None], {}, {"a": 1}, True, [[-1]], [2**63]])
def test_anything_in_any_place_is_refused_or_right(key: str, value: Any) -> None:
    try:
        structure = structure_from_wire("array", ARRAY | {key: value})
    except Refused:
        return
    assert structure_from_wire("array", structure_to_wire(structure)) == structure
