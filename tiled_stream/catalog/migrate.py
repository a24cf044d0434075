"""Shapes of the database: numbered `.sql` files, applied forward only, each once, under the lock of its engine.

A database of another application is refused and never altered; so is one of a newer version of this one.
"""

from __future__ import annotations

from hashlib import sha256
from importlib import resources

import msgspec

from ..domain.errors import Unavailable

__all__ = ["Migration", "migrations", "pending"]


class Migration(msgspec.Struct, frozen=True):
    """One step: its number, what it is called, its SQL and the digest by which an altered file is noticed."""

    number: int
    name: str
    sql: str
    digest: str


def migrations(dialect: str) -> list[Migration]:
    """The steps of a dialect, in order."""
    steps = []
    for file in sorted(resources.files(__package__).joinpath("sql", dialect).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            sql = file.read_text(encoding="utf-8")
            steps.append(Migration(int(number), name, sql, sha256(sql.encode()).hexdigest()))
    return steps


def pending(steps: list[Migration], applied: dict[int, str], *, where: str) -> list[Migration]:
    """Steps that `applied` (number → digest) lacks. `Unavailable` if the database is newer or was made by other files."""
    known = {step.number: step.digest for step in steps}
    for number, digest in applied.items():
        if number not in known:
            raise Unavailable(f"The catalog {where} was made by a newer version (step {number}); upgrade tiled_stream to use it.")
        if known[number] != digest:
            raise Unavailable(f"Step {number} of the catalog {where} is not the one this version knows; it is left alone.")
    return [step for step in steps if step.number not in applied]
