"""Messages of a stream, by example from the wire protocol."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy
import orjson
import pyarrow
import pytest

from tiled_stream.domain.dtypes import from_numpy
from tiled_stream.domain.errors import NotFound
from tiled_stream.domain.events import (
    DELIVERED,
    ArrayReferenced,
    ArrayWritten,
    AssetDeleted,
    ChildCreated,
    ChildDeleted,
    ChildMetadataUpdated,
    Event,
    Record,
    RecordLost,
    RevisionDeleted,
    RowsAppended,
    StreamEnded,
    TableWritten,
)
from tiled_stream.domain.nodes import Asset, DataSource, Node, Spec
from tiled_stream.domain.structures import ArrayStructure, Structure
from tiled_stream.wire.messages import Envelope, MessageEncoder
from tiled_stream.wire.tables import structure_of

from .test_tables import ZOO

BASE = "http://h/api/v1"
TIME = 1795404785.729856  # 2026-11-23T03:33:05.729856 UTC
I8 = {"endianness": "little", "kind": "i", "itemsize": 8, "dt_units": None}
ARRAY = ArrayStructure(from_numpy(numpy.dtype("<i8")), ((2, 1), (3,)), (3, 3))
TABLE = pyarrow.table({"x": [0, 1], "y": ["a", "a"]})
CELLS = numpy.arange(3).tobytes()


def encoder(envelope: Envelope, structure: Structure | None = ARRAY, family: str = "array") -> MessageEncoder:
    return MessageEncoder(envelope, BASE, ("reg", "x"), structure, family)


def decoded(envelope: Envelope, data: bytes | None) -> Any:
    assert data is not None
    return orjson.loads(data) if envelope == "json" else msgspec.msgpack.decode(data)


def told(envelope: Envelope, event: Event, structure: Structure | None, family: str, payload: bytes = b"") -> Any:
    """The message about `event`, less what all messages have."""
    message = decoded(envelope, encoder(envelope, structure, family)(Record(3, TIME, event, payload)))
    assert message.pop("sequence") == 3
    assert message.pop("timestamp") == "2026-11-23T03:33:05.729856"
    return message


def arrow_file(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


both = pytest.mark.parametrize("envelope", ["json", "msgpack"])


@both
@pytest.mark.parametrize(
    ("structure", "family", "expected"),
    [
        (ARRAY, "array", {"type": "array-schema", "version": 1, "data_type": I8}),
        (None, "container", {"type": "container-schema", "version": 1}),
        (
            structure_of(TABLE.schema),
            "table",
            {"type": "table-schema", "version": 1, "arrow_schema": structure_of(TABLE.schema).arrow_schema},
        ),
    ],
)
def test_schemas(envelope: Envelope, structure: Structure | None, family: str, expected: dict[str, Any]) -> None:
    assert decoded(envelope, encoder(envelope, structure, family).schema()) == expected


@pytest.mark.parametrize("family", ["awkward", "bytes"])
def test_families_without_a_stream(family: str) -> None:
    with pytest.raises(NotFound):
        encoder("json", None, family)


@both
@pytest.mark.parametrize(
    ("event", "offset", "block"),
    [
        (ArrayWritten((1, 3)), None, None),
        (ArrayWritten((1, 3), (2, 0), (1, 0)), None, [1, 0]),
        (ArrayWritten((1, 3), (2,)), [2], None),
        (ArrayWritten((1, 3), (3, 0), structure=ARRAY, persist=False), [3, 0], None),
    ],
)
def test_array_data(envelope: Envelope, event: ArrayWritten, offset: Any, block: Any) -> None:
    expected = {"type": "array-data", "mimetype": "application/octet-stream", "shape": [1, 3], "offset": offset, "block": block}
    if envelope == "json":
        expected |= {"content-type": "application/json", "payload": [[0, 1, 2]]}
    else:
        expected |= {"payload": CELLS}
    assert told(envelope, event, ARRAY, "array", CELLS) == expected


@both
@pytest.mark.parametrize(
    ("event", "partition", "append"),
    [(RowsAppended(4, 2), 4, True), (TableWritten(None, 2), None, False), (TableWritten(1, 2), 1, False)],
)
def test_table_data(envelope: Envelope, event: RowsAppended | TableWritten, partition: Any, append: bool) -> None:
    expected = {
        "type": "table-data",
        "mimetype": "application/vnd.apache.arrow.file",
        "partition": partition,
        "append": append,
    }
    body = arrow_file(TABLE)
    if envelope == "json":
        expected |= {"content-type": "application/json", "payload": {"x": [0, 1], "y": ["a", "a"]}}
    else:
        expected |= {"payload": body}
    assert told(envelope, event, structure_of(TABLE.schema), "table", body) == expected


@both
def test_array_ref(envelope: Envelope) -> None:
    structure = ArrayStructure(from_numpy(numpy.dtype("<i8")), ((1, 1, 1), (4,)), (3, 4))
    assets = (Asset("file://localhost/a.npy", False, "data_uris", 0, 224, 7), Asset("file://localhost/b.npy", False))
    source = DataSource("array", structure, "application/x-npy", 5, {"p": 1}, {"chunks": [1]}, assets, "external")
    wire_source = {
        "id": 5,
        "structure_family": "array",
        "structure": {"data_type": I8, "chunks": [[1, 1, 1], [4]], "shape": [3, 4], "dims": None, "resizable": False},
        "mimetype": "application/x-npy",
        "parameters": {"p": 1},
        "properties": {"chunks": [1]},
        "assets": [
            {
                "data_uri": "file://localhost/a.npy",
                "is_directory": False,
                "parameter": "data_uris",
                "num": 0,
                "size": 224,
                "id": 7,
            },
            # Clients want a number and a text.
            {"data_uri": "file://localhost/b.npy", "is_directory": False, "parameter": "", "num": 1, "size": None, "id": None},
        ],
        "management": "external",
    }
    assert told(envelope, ArrayReferenced(source, (2, 0), (1, 4)), structure, "array") == {
        "type": "array-ref",
        "data_source": wire_source,
        "patch": {"offset": [2, 0], "shape": [1, 4]},
        "shape": [3, 4],
        "uri": "http://h/api/v1/array/full/reg/x?slice=2:3,0:4",
    }
    assert told(envelope, ArrayReferenced(source), structure, "array") == {
        "type": "array-ref",
        "data_source": wire_source,
        "patch": None,
        "shape": [3, 4],
        "uri": "http://h/api/v1/array/full/reg/x?slice=:3,:4",
    }
    short = told(envelope, ArrayReferenced(source, (2,), (1, 3)), structure, "array")
    assert short["patch"] == {"offset": [2, 0], "shape": [1, 3]}
    assert short["uri"].endswith("?slice=2:3,0:3")


@both
def test_child_created(envelope: Envelope) -> None:
    asset = Asset("file://localhost/x", True, "data_uri", id=9)
    node = Node(
        "0" * 32,
        "img",
        "1" * 32,
        "array",
        {"start": {"uid": "u"}},
        (Spec("BlueskyRun", "3.0"), Spec("composite")),
        ("t",),
        (DataSource("array", ARRAY, "application/x-zarr", 5, assets=(asset,)),),
    )
    assert told(envelope, ChildCreated(node), None, "container") == {
        "type": "container-child-created",
        "key": "img",
        "structure_family": "array",
        "specs": [{"name": "BlueskyRun", "version": "3.0"}, {"name": "composite", "version": None}],
        "metadata": {"start": {"uid": "u"}},
        "data_sources": [
            {
                "id": 5,
                "structure_family": "array",
                "structure": {"data_type": I8, "chunks": [[2, 1], [3]], "shape": [3, 3], "dims": None, "resizable": False},
                "mimetype": "application/x-zarr",
                "parameters": {},
                "properties": {},
                "assets": [],
                "management": "writable",
            }
        ],
        "access_tags": ["t"],
    }


@both
@pytest.mark.parametrize(("revision", "more"), [(None, {}), (2, {"revision_number": 2})])
def test_child_metadata_updated(envelope: Envelope, revision: int | None, more: dict[str, Any]) -> None:
    event = ChildMetadataUpdated("img", "0" * 32, {"stop": None}, (Spec("a"),), (), revision)
    assert told(envelope, event, None, "container") == {
        "type": "container-child-metadata-updated",
        "key": "img",
        "specs": [{"name": "a", "version": None}],
        "metadata": {"stop": None},
        **more,
    }


@both
@pytest.mark.parametrize(
    "event",
    [
        ChildMetadataUpdated("", "root", {}, (), (), 1),
        ChildDeleted("a", "0" * 32),
        RevisionDeleted("a", "0" * 32, 1),
        StreamEnded(),
        RecordLost(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_what_takes_a_sequence_only(envelope: Envelope, event: Event) -> None:
    assert encoder(envelope, None, "container")(Record(1, TIME, event)) is None


def test_those_above_are_all_that_is_not_delivered() -> None:
    silent = {AssetDeleted, ChildDeleted, RevisionDeleted, StreamEnded, RecordLost}
    assert set(Event.__args__) - silent == set(DELIVERED)


@pytest.mark.parametrize("name", ZOO)
def test_rows_of_every_type_have_a_json_message(name: str) -> None:
    array, expected = ZOO[name]
    table = pyarrow.table({"x": array})
    message = told("json", RowsAppended(0, len(array)), structure_of(table.schema), "table", arrow_file(table))
    assert message["payload"] == {"x": expected}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (numpy.array([1.5, float("nan")]), [1.5, None]),
        (numpy.array(7, ">u2"), 7),
        (numpy.zeros((0, 3)), []),
        (numpy.array(["a", ""], "<U1"), ["a", ""]),
        (numpy.array([0xD800], "<u4").view("<U1"), ["\ufffd"]),
        (numpy.array(["2026-01-02"], "M8[D]"), ["2026-01-02"]),
        (numpy.array([1j]), [[0, 1]]),
        (numpy.array([(1, 0.5)], [("a", "i4"), ("b", "f8")]), [[1, 0.5]]),
    ],
)
def test_cells_of_every_kind_have_a_json_message(cells: Any, expected: Any) -> None:
    structure = ArrayStructure(from_numpy(cells.dtype), tuple((n,) for n in cells.shape), cells.shape)
    assert told("json", ArrayWritten(cells.shape), structure, "array", cells.tobytes())["payload"] == expected


def test_cells_of_a_type_that_the_array_no_longer_has_do_not_stop_the_stream() -> None:
    assert told("json", ArrayWritten((3,)), ARRAY, "array", b"\0" * 12)["payload"] is None


@both
def test_a_notice_cannot_be_taken_for_an_update(envelope: Envelope) -> None:
    assert decoded(envelope, encoder(envelope).notice("gap", first=3, last=9, reason="truncated")) == {
        "type": "gap",
        "first": 3,
        "last": 9,
        "reason": "truncated",
    }


class TestIdentity:
    """Equal encoders share their work, so they must be equal exactly when their messages are."""

    def test_equal(self) -> None:
        assert encoder("json") == encoder("json")
        assert len({encoder("json"), encoder("json"), encoder("msgpack")}) == 2

    def test_an_array_that_grew_has_the_same_messages(self) -> None:
        grown = msgspec.structs.replace(ARRAY, shape=(9, 3), chunks=((9,), (3,)))
        assert encoder("json", grown) == encoder("json")
        assert hash(encoder("json", grown)) == hash(encoder("json"))

    @pytest.mark.parametrize(
        "other",
        [
            encoder("msgpack"),
            MessageEncoder("json", "https://h/api/v1", ("reg", "x"), ARRAY, "array"),
            MessageEncoder("json", BASE, ("reg", "y"), ARRAY, "array"),
            encoder("json", msgspec.structs.replace(ARRAY, data_type=from_numpy(numpy.dtype("<f4")))),
            "json",
        ],
    )
    def test_different(self, other: object) -> None:
        assert encoder("json") != other
