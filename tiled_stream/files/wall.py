"""The wall around what may be read: a registered file is given out only if it lies below a directory that the operator named.

A URI is what a client says. It is decoded once and *resolved* by the operating system, symbolic links and ``..`` included, before
it is compared; what is compared is what is opened. Whoever can write into a readable directory cannot reach out of it by a link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ..domain.errors import Forbidden, Malformed
from ..domain.uris import redacted

__all__ = ["Wall"]

_SCHEME = "file:"


class Wall:
    """`directories` (paths or `file:` URIs) are those whose contents may be read. They need not exist yet.

    Every method blocks on the file system.
    """

    def __init__(self, directories: Iterable[str | Path]) -> None:
        self._directories = tuple(_local(str(d)) if _is_uri(d) else os.path.abspath(d) for d in directories)

    def path_of(self, uri: str) -> Path:
        """Where the file of this URI really is. `Malformed` if it is none of a file, `Forbidden` if it lies outside."""
        return self.within(_local(uri))

    def within(self, path: str | Path) -> Path:
        """`path` resolved. `Forbidden` if that lies outside; `Malformed` if it is neither a file nor a directory."""
        real = _resolved(path)
        if not any(_is_below(real, _resolved(directory)) for directory in self._directories):
            raise Forbidden(
                f"The file {str(path)!r} lies outside of the directories that this server may read; "
                "start it with -r DIRECTORY to add one."
            )
        _check_kind(real, path)
        return Path(real)


def _is_uri(place: str | Path) -> bool:
    return str(place).lower().startswith(_SCHEME)


def _local(uri: str) -> str:
    """The path that a `file:` URI of this machine means. A ``?`` or ``#`` that a client forgot to quote belongs to it."""
    if not _is_uri(uri):
        raise Malformed(f"{redacted(uri)!r} is not the URI of a file: 'file://localhost/…' is expected.")
    rest = uri[len(_SCHEME) :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise Malformed(f"{redacted(uri)!r} is a file of another host; only those of this server can be read.")
        rest = slash + path
    text = os.fsdecode(unquote_to_bytes(rest))
    if not text.startswith("/"):
        raise Malformed(f"{redacted(uri)!r} is not absolute: 'file://localhost/…' is expected.")
    return text


def _resolved(path: str | Path) -> str:
    if "\x00" in str(path):
        raise Malformed("A path cannot hold a NUL.")
    try:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:  # a name longer than the system takes, a text that has no bytes
        raise Malformed(f"{str(path)!r} is no path of this machine: {error}") from None


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _check_kind(real: str, asked: str | Path) -> None:
    """Opening a pipe or a device would hang or worse. What is not there is left to who opens it."""
    try:
        mode = os.stat(real).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Malformed(f"{str(asked)!r} is neither a file nor a directory.")
