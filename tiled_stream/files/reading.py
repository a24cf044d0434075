"""What went wrong while a file was read, as errors that a client understands: one place for all formats.

A file that was changed moments ago is likely to be one that somebody writes; so what is wrong with it is a reason to come back
and not a verdict.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..domain.errors import Forbidden, Unavailable
from .port import Damaged, Missing, Source

__all__ = ["SETTLED", "is_fresh", "not_ready", "reading"]

#: Seconds after which a file that nobody touched is taken for complete.
SETTLED = 30.0


def not_ready(path: Path, why: str) -> Unavailable:
    """Come back in a second."""
    return Unavailable(f"The file {path.name!r} is not ready: {why}. Try again.", retry_after=1.0)


@contextmanager
def reading(source: Source, path: Path, *faults: type[Exception]) -> Iterator[None]:
    """Around all work with one file. `faults` are what the format's library raises for what it cannot understand."""
    try:
        yield
    except FileNotFoundError:
        raise Missing(f"The file {path.name!r} does not exist.") from None
    except PermissionError:
        raise Forbidden(f"The system does not let this server read the file {path.name!r}.") from None
    except Exception as error:
        if not isinstance(error, (Damaged, OSError, EOFError, *faults)):
            raise
        if is_fresh(path, source.now):
            raise not_ready(path, f"it was changed just now and cannot be read yet ({error})") from None
        raise Damaged(f"The file {path.name!r} cannot be read as {source.mimetype}: {error}") from None


def is_fresh(path: Path, now: float) -> bool:
    """Clocks of file servers differ, so the future is near, too."""
    try:
        return abs(now - os.stat(path).st_mtime) < SETTLED
    except OSError:
        return True
