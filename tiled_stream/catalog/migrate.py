"""SQL that ships with the package: the steps that shape a database, and the statements of an engine, both by name.

Steps are numbered files, applied forward only, each once, under the lock of the engine. A step that was released is never edited:
databases remember its digest, and one that was shaped by other files is refused and not altered, as is one of a newer version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import resources

import msgspec

from ..domain.errors import Unavailable

__all__ = ["Migration", "migrations", "pending", "statements"]

_NAME = re.compile(r"^-- :name (\w+)\n", re.MULTILINE)


class Migration(msgspec.Struct, frozen=True):
    """One step: its number, what it is called, its SQL and the digest by which an altered file is noticed."""

    number: int
    name: str
    sql: str
    digest: str


def migrations(dialect: str) -> list[Migration]:
    """The steps of a dialect, in order."""
    steps = []
    for file in sorted(_folder(dialect).joinpath("migrations").iterdir(), key=lambda f: f.name):
        number, _, name = file.name.removesuffix(".sql").partition("_")
        sql = file.read_text(encoding="utf-8")
        steps.append(Migration(int(number), name, sql, sha256(sql.encode()).hexdigest()))
    return steps


def pending(steps: Sequence[Migration], applied: Mapping[int, str], *, where: str) -> list[Migration]:
    """Steps that `applied` (number → digest) lacks. `Unavailable` if the database is newer or was made by other files."""
    known = {step.number: step.digest for step in steps}
    for number, digest in applied.items():
        if number not in known:
            raise Unavailable(f"The catalog {where} was made by a newer version (step {number}); upgrade tiled_stream to use it.")
        if known[number] != digest:
            raise Unavailable(
                f"The catalog {where} was made by a version whose step {number} was another one; it is left alone. "
                "Use the version that made it, or another file."
            )
    return [step for step in steps if step.number not in applied]


def statements(dialect: str, **fragments: str) -> dict[str, str]:
    """The statements of an engine by name; `{fragment}` in them is replaced."""
    text = _folder(dialect).joinpath("statements.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    found = dict(zip(parts[::2], (part.strip().rstrip(";") for part in parts[1::2]), strict=True))
    for name, value in fragments.items():
        found = {key: sql.replace(f"{{{name}}}", value) for key, sql in found.items()}
    return found


def _folder(dialect: str) -> resources.abc.Traversable:
    return resources.files(__package__).joinpath("sql", dialect)
