"""The few words of the wire protocol that a load needs, written by hand: the generator costs little, and any server can be asked.

What must stay true: the moment of writing travels *inside* the data (its first float64), so write to delivery is measured end to
end, through whatever the server does in between. The clock is that of one machine: do not measure across machines.
"""

from __future__ import annotations

import base64
import struct
import time
from typing import Any

import msgpack

__all__ = ["ROW_DATA_TYPE", "RowFile", "create_array", "create_container", "create_table", "row", "sent_at"]

ROW_DATA_TYPE = {"endianness": "little", "kind": "f", "itemsize": 8, "dt_units": None}
#: Stands in the template of a table body where the time goes; no other double of the file has this pattern.
_MARK = struct.pack("<d", 1.23456789e-123)


def create_container(key: str) -> dict[str, Any]:
    """Body of the request that makes a container."""
    return {"id": key, "structure_family": "container", "metadata": {}, "specs": [], "data_sources": []}


def create_array(key: str, length: int) -> dict[str, Any]:
    """Body of the request that makes an array of one row of `length` float64, to be extended along axis 0."""
    structure = {
        "data_type": ROW_DATA_TYPE,
        "chunks": [[1], [length]],
        "shape": [1, length],
        "dims": None,
        "resizable": False,
    }
    return _node(key, "array", structure, None)


def create_table(key: str, file: RowFile) -> dict[str, Any]:
    """Body of the request that makes a table with the columns of `file`."""
    structure = {
        "arrow_schema": file.schema_uri,
        "npartitions": 1,
        "columns": file.columns,
        "resizable": False,
    }
    return _node(key, "table", structure, "application/x-tiled-sql-table")


def row(length: int, fill: bytes) -> bytes:
    """One row of `length` float64; the first is the time now, `fill` are the others' bytes."""
    return struct.pack("<d", time.time()) + fill[: 8 * (length - 1)]


class RowFile:
    """One row as an Arrow file: float64 columns, the first is the time. Built once; `body` only writes the time into it."""

    def __init__(self, columns: int) -> None:
        import pyarrow

        self.columns = ["time", *(f"c{i}" for i in range(1, columns))]
        schema = pyarrow.schema([(name, pyarrow.float64()) for name in self.columns])
        values = [[struct.unpack("<d", _MARK)[0]], *([float(i)] for i in range(1, columns))]
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_file(sink, schema) as writer:
            writer.write_table(pyarrow.table(values, schema=schema))
        self._template = sink.getvalue().to_pybytes()
        self._at = self._template.index(_MARK)
        encoded = base64.b64encode(schema.serialize().to_pybytes()).decode()
        self.schema_uri = f"data:application/vnd.apache.arrow.file;base64,{encoded}"

    def body(self) -> bytes:
        """One row, written now."""
        return self._template[: self._at] + struct.pack("<d", time.time()) + self._template[self._at + 8 :]


def sent_at(frame: bytes) -> tuple[int, str, float | None]:
    """Sequence, type and time of writing of one message; sequence 0 for the schema, time None where there is none."""
    message = msgpack.unpackb(frame)
    kind, sequence = message["type"], message.get("sequence", 0)
    if kind == "array-data":
        return sequence, kind, struct.unpack_from("<d", message["payload"])[0]
    if kind == "table-data":
        return sequence, kind, _first_time(message["payload"])
    return sequence, kind, None


def _first_time(payload: bytes) -> float:
    import pyarrow

    with pyarrow.ipc.open_file(pyarrow.BufferReader(payload)) as reader:
        batch = reader.get_batch(0)
    return float(batch.column(0)[0].as_py())


def _node(key: str, family: str, structure: dict[str, Any], mimetype: str | None) -> dict[str, Any]:
    source = {
        "structure_family": family,
        "structure": structure,
        "id": None,
        "mimetype": mimetype,
        "parameters": {},
        "properties": {},
        "assets": [],
        "management": "writable",
    }
    return {"id": key, "structure_family": family, "metadata": {}, "specs": [], "data_sources": [source]}
