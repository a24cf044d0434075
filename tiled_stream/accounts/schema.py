"""The tables of accounts: made, checked and brought up to date, under a lock, for several servers may start at once.

Steps are numbered files, applied forward only, each once. What must stay true: a database of a newer version, or one that was
shaped by other files or other programs, is left as it is.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib import resources

import msgspec

from ..domain.errors import Unavailable
from .database import Connection, Database

__all__ = ["STEPS", "Step", "prepare", "steps", "version_of"]

#: Remembers which steps were applied.
STEPS = "account_steps"
_MAKE = "CREATE TABLE {} (number INTEGER PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL)"


class Step(msgspec.Struct, frozen=True):
    """One step: its number, its name, its statements and the digest by which an altered file is noticed."""

    number: int
    name: str
    statements: tuple[str, ...]
    digest: str


@cache
def steps(package: str = __package__) -> tuple[Step, ...]:
    """All steps of a package, in order. Their files hold no semicolon but at the ends of statements."""
    found = []
    for file in sorted(resources.files(package).joinpath("sql").iterdir(), key=lambda f: f.name):
        number, _, name = file.name.removesuffix(".sql").partition("_")
        sql = file.read_text(encoding="utf-8")
        statements = tuple(part for text in sql.split(";\n") if (part := text.strip()))
        found.append(Step(int(number), name, statements, sha256(sql.encode()).hexdigest()))
    return tuple(found)


async def prepare(database: Database, *, init: bool, package: str = __package__, table: str = STEPS) -> None:
    """Check the tables of an open database; with `init` make them and bring them up to date. `Unavailable` with the cure."""
    async with database.transaction() as db:
        applied = await _applied(database, db, table, init=init)
        if applied is None and not init:
            raise Unavailable(
                f"The database of accounts {database.shown} is not initialised. Run `tiled-stream admin initialize-database "
                f"{database.shown}`, or set database.init_if_not_exists."
            )
        missing = _missing(applied or {}, database, steps(package))
        if applied and missing and not init:
            raise Unavailable(
                f"The database of accounts {database.shown} is of an older version. Make a backup, then run "
                f"`tiled-stream admin upgrade-database {database.shown}`."
            )
        if applied is None:
            await db.run(_MAKE.format(table))
        for step in missing:
            for statement in step.statements:
                await db.run(statement)
            await db.run(f"INSERT INTO {table} (number, name, digest) VALUES (?, ?, ?)", step.number, step.name, step.digest)


async def version_of(database: Database) -> int | None:
    """The last step that shaped an open database; None if it is not initialised."""
    async with database.transaction() as db:
        applied = await _applied(database, db, STEPS, init=False)
    return None if applied is None else max(applied, default=0)


async def _applied(database: Database, db: Connection, table: str, *, init: bool) -> dict[int, str] | None:
    if not await database.hold(db, table, init=init):
        return None
    return {int(row[0]): str(row[1]) for row in await db.rows(f"SELECT number, digest FROM {table}")}


def _missing(applied: dict[int, str], database: Database, all_steps: tuple[Step, ...]) -> list[Step]:
    shown = f"{database.called} {database.shown}"
    known = {step.number: step.digest for step in all_steps}
    for number, digest in applied.items():
        if number not in known:
            raise Unavailable(
                f"The database of {shown} was made by a newer version (step {number}); upgrade tiled_stream to use it."
            )
        if known[number] != digest:
            raise Unavailable(
                f"The database of {shown} was made by a version whose step {number} was another one; it is left alone."
            )
    return [step for step in all_steps if step.number not in applied]
