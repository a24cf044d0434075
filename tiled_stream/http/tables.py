"""Tables: read whole or by partition, some columns or all; replace, append."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import orjson
from litestar import Request, get, patch, post, put
from litestar.response.base import ASGIResponse

from ..domain.commands import AppendRows, WriteTable
from ..domain.errors import Malformed, TooLarge, Unsatisfiable, UnsupportedType
from ..nodes.repository import Located
from ..wire.negotiate import HDF5, XDI_TEXT, XLSX, choose
from ..wire.tables import ARROW_FILE, encode_table
from .answers import BIG, data_answer, data_tag, not_modified, null
from .params import Query, header, keys_of
from .services import ack_of, edge_of

if TYPE_CHECKING:
    import pyarrow

__all__ = ["ROUTES", "columns_of", "table_answer", "write_table"]

Connection = Request[Any, Any, Any]

#: Formats whose libraries take a while to load, or to work: never on the loop.
_SLOW = (HDF5, XLSX)


@get("/table/full/{path:path}", opt={"scopes": ("read:data",)})
async def get_full(request: Connection) -> ASGIResponse:
    """All rows, all partitions one after the other."""
    query = Query(request.scope)
    return await table_answer(request, await _located(request), query, columns=columns_of(query))


@post("/table/full/{path:path}", opt={"scopes": ("read:data",)}, status_code=200)
async def post_full(request: Connection) -> ASGIResponse:
    """As GET, with the columns in the body for those who want many."""
    columns = await _columns_of_body(request)
    return await table_answer(request, await _located(request), Query(request.scope), columns=columns)


@get("/table/partition/{path:path}", opt={"scopes": ("read:data",)})
async def get_partition(request: Connection) -> ASGIResponse:
    """The rows of one partition."""
    query = Query(request.scope)
    partition = _partition(query)
    return await table_answer(request, await _located(request), query, columns=columns_of(query), partition=partition)


@post("/table/partition/{path:path}", opt={"scopes": ("read:data",)}, status_code=200)
async def post_partition(request: Connection) -> ASGIResponse:
    """As GET, with the columns in the body."""
    query = Query(request.scope)
    columns = await _columns_of_body(request)
    return await table_answer(request, await _located(request), query, columns=columns, partition=_partition(query))


@put("/table/full/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def put_full(request: Connection) -> ASGIResponse:
    """Replace all rows."""
    return await write_table(request)


async def write_table(request: Connection) -> ASGIResponse:
    """Replace all rows of a table by the body of a request."""
    _check_body_type(request)
    command = WriteTable(None, await request.body())
    await edge_of(request).writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return null()


@put("/table/partition/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def put_partition(request: Connection) -> ASGIResponse:
    """Replace the rows of one partition."""
    _check_body_type(request)
    command = WriteTable(_partition(Query(request.scope)), await request.body())
    await edge_of(request).writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return null()


@patch("/table/partition/{path:path}", opt={"scopes": ("write:data",), "once": True}, status_code=200)
async def patch_partition(request: Connection) -> ASGIResponse:
    """Append rows to a partition."""
    _check_body_type(request)
    command = AppendRows(_partition(Query(request.scope)), await request.body())
    await edge_of(request).writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return null()


async def table_answer(
    request: Connection, at: Located, query: Query, *, columns: list[str] | None, partition: int | None = None
) -> ASGIResponse:
    """Rows of a table in the format that was asked for."""
    edge = edge_of(request)
    specs = [spec.name for spec in at.node.specs]
    media_type = choose("table", query.get("format"), header(request.scope, b"accept"), specs=specs)
    sources = at.node.data_sources
    now = time.time_ns() if sources and sources[0].management == "external" else 0  # files change without a record
    tag = data_tag((edge.log.epoch, at.node.id, at.head, now, at.column, columns, partition, media_type, at.node.revision))
    same = not_modified(request.scope, tag)
    if same is not None:
        return same
    table = await edge.reader.table(at, columns=columns, partition=partition)
    if table.nbytes > edge.settings.response_bytesize_limit:
        raise TooLarge(
            f"The answer would exceed {edge.settings.response_bytesize_limit} bytes; ask for fewer columns or by partition."
        )
    is_quick = table.nbytes <= BIG and (media_type == ARROW_FILE or (table.num_rows <= 1000 and media_type not in _SLOW))
    work = (table, media_type, at.node.metadata)
    body = _encoded(*work) if is_quick else await asyncio.to_thread(_encoded, *work)
    return await data_answer(request.scope, body, media_type, tag, filename=query.get("filename"))


def _encoded(table: pyarrow.Table, media_type: str, metadata: dict[str, Any]) -> bytes:
    if media_type != XDI_TEXT:
        return encode_table(table, media_type)
    from ..wire.export_xdi import encode_xdi

    return encode_xdi(table, metadata)


def _partition(query: Query) -> int:
    partition = query.integer("partition", None, high=(1 << 31) - 1)
    if partition is None:
        raise Malformed("Say which partition: ?partition=i.")
    return partition


async def _located(request: Connection) -> Located:
    return await edge_of(request).browse.resolve(keys_of(request))


def columns_of(query: Query) -> list[str] | None:
    """The columns that are asked for; None: all."""
    columns, fields = query.all("column"), query.all("field")
    if columns and fields:
        raise Unsatisfiable("Give 'column' or its old name 'field', not both.")
    return columns or fields or None


async def _columns_of_body(request: Connection) -> list[str] | None:
    body = await request.body()
    try:
        columns = orjson.loads(body) if body else None
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from None
    if columns is None:
        return None
    if not isinstance(columns, list) or not columns or not all(isinstance(c, str) for c in columns):
        raise Malformed("The body must be a JSON list of at least one column name, or null.")
    return columns


def _check_body_type(request: Connection) -> None:
    declared = (header(request.scope, b"content-type") or ARROW_FILE).split(";")[0].strip().lower()
    if declared != ARROW_FILE:
        raise UnsupportedType(f"The body of a table is {ARROW_FILE}, not {declared}.")


ROUTES = [get_full, post_full, get_partition, post_partition, put_full, put_partition, patch_partition]
