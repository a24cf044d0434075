"""Where things rest: names of files, directories and SQL tables, decided from ids alone."""

from __future__ import annotations

import re
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..domain.errors import Malformed
from ..domain.nodes import NodeId, wire_number
from ..domain.structures import TableStructure

__all__ = [
    "ARRIVED_BODIES",
    "SQL_TABLE",
    "array_directory",
    "check_columns",
    "dataset_id",
    "file_uri",
    "schema_table",
    "table_name",
]

#: The mimetype of tables that live in an SQL database.
SQL_TABLE = "application/x-tiled-sql-table"

_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
#: Words that DuckDB, SQLite or PostgreSQL keep for themselves.
_RESERVED = """
all alter analyse analyze and any array as asc asymmetric authorization begin between binary both by case cast check
collate collation column commit concurrently constraint create cross current_catalog current_date current_role
current_schema current_time current_timestamp current_user default deferrable delete desc describe distinct do drop else
end escape except exists false fetch following for foreign freeze from full glob grant group having if ilike in index
initially inner insert intersect into is isnull join lambda lateral leading left like limit localtime localtimestamp
match natural not notnull null offset on only or order outer over overlaps pivot pivot_longer pivot_wider placing
preceding primary qualify range recursive references regexp rename replace returning right rollback row rows select
session_user set show similar some summarize symmetric table tablesample then to trailing transaction true unbounded
union unique unpivot update user using values vacuum variadic verbose view when where window with without
"""
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\"';]")


def array_directory(root: Path, node: NodeId) -> Path:
    """The directory of one array; two digits first, so that no directory holds a million."""
    return root / node[:2] / node


def file_uri(path: Path) -> str:
    """``file://localhost/…`` of an absolute path."""
    return "file://localhost" + quote(str(path.absolute()))


def dataset_id(node: NodeId) -> int:
    """The number under which the rows of one node stand in a shared SQL table."""
    return wire_number(node)


def schema_table(structure: TableStructure) -> str:
    """The SQL table in which the rows of all nodes of this schema lie."""
    return "table_" + md5(structure.arrow_schema.encode(), usedforsecurity=False).hexdigest()


def table_name(structure: TableStructure, parameters: dict[str, Any]) -> str:
    """What a data source calls its SQL table: that of its schema, or as the client wants. `Malformed` for a bad name."""
    named = parameters.get("table_name")
    if named is None:
        return schema_table(structure)
    if not isinstance(named, str) or _TABLE_NAME.match(named) is None or named in _RESERVED.split():
        raise Malformed(f"{named!r} cannot name a table: use a-z, 0-9 and _, a letter first, at most 63, no reserved word.")
    return named


def check_columns(structure: TableStructure) -> None:
    """`Malformed` for names that the protocol keeps from SQL tables."""
    for name in structure.columns:
        if name.startswith("_"):
            raise Malformed(f"The column {name!r} begins with '_', which is kept for internal use.")
        if len(name.encode()) > 63 or not name or _FORBIDDEN.search(name):
            raise Malformed(f"{name!r} cannot name a column: at most 63 bytes, no quotes, semicolons or control characters.")
    if len(set(structure.columns)) != len(structure.columns):
        raise Malformed("The columns of a table must have different names.")


#: Which bodies may hold rows of the records after `after` up to `upto`: the last one of each partition that begins before, and
#: those that begin in between.
ARRIVED_BODIES = """
SELECT _sequence, _partition_id FROM {table} AS b WHERE _dataset_id = {dataset} AND _sequence <= {upto} AND _sequence >= coalesce(
    (SELECT max(_sequence) FROM {table} WHERE _dataset_id = b._dataset_id AND _partition_id = b._partition_id
        AND _sequence <= {after} + 1), 0)
ORDER BY _sequence
"""
