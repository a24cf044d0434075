"""Which store has the tables of which mimetype: a database those that grow row by row, files those that are written whole.

The mimetype of a data source never changes, so it tells the store of a node for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..domain.errors import Malformed, NotSupported, UnsupportedType
from ..domain.nodes import NodeId
from ..domain.structures import TableStructure
from .layout import SQL_TABLE
from .port import Allocation, TableStore

__all__ = ["Tables"]


class Tables:
    """`sql` is None without a database; `files`: mimetype → store, empty without a directory, the first ones preferred."""

    def __init__(self, sql: TableStore | None, files: dict[str, TableStore]) -> None:
        self._sql = sql
        self._files = files

    def __iter__(self) -> Iterator[TableStore]:
        """All stores."""
        yield from self._files.values()
        if self._sql is not None:
            yield self._sql

    def of(self, mimetype: str) -> TableStore:
        """`UnsupportedType` for what no store here writes, `NotSupported` if its store is not configured."""
        if mimetype == SQL_TABLE:
            if self._sql is None:
                raise NotSupported("This server has no database for tables: start it with -w duckdb:///PATH.")
            return self._sql
        store = self._files.get(mimetype)
        if store is None:
            known = [SQL_TABLE] * (self._sql is not None) + list(self._files)
            raise UnsupportedType(
                f"Tables of type {mimetype!r} cannot be written here; leave the mimetype out, or use one of: {', '.join(known)}."
                + ("" if self._files else " Tables in files need a directory: start the server with -w DIRECTORY.")
            )
        return store

    def allocate(self, node: NodeId, structure: TableStructure, mimetype: str | None, parameters: dict[str, Any]) -> Allocation:
        """See `TableStore`. Without a mimetype: the first that keeps the columns exactly, files before SQL."""
        if mimetype is not None:
            return self.of(mimetype).allocate(node, structure, mimetype, parameters)
        refusal: Malformed | UnsupportedType | None = None
        for store in self._preferred(parameters):
            try:
                return store.allocate(node, structure, None, parameters)
            except (Malformed, UnsupportedType) as error:
                refusal = refusal or error
        raise refusal or NotSupported("This server has no writable storage for tables: start it with -w DIRECTORY.")

    def _preferred(self, parameters: dict[str, Any]) -> Sequence[TableStore]:
        stores = list(self)
        # Who names an SQL table wants one.
        return stores[::-1] if "table_name" in parameters else stores
