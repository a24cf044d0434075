"""The directory of one node, changed by one process at a time, without locks.

A process that may change the directory has a *hold*: a subdirectory ``.applied/<fence>-<turn>-<token>`` whose name is never used
again. It is the staging directory too. Every visible change passes through it, by path: a new file is renamed out of it, an old
file is renamed into it, a file that is extended in place is linked into it first. The highest hold (by fence, then turn) is the
valid one. Its owner empties and removes all lower ones before it reads or changes anything else. From then on each of those
calls of a predecessor fails with ENOENT, however long it was paused and between which two steps.

Why not a lock: a paused process keeps its lock, and its successor must not wait for it.

- *Make mine, then list, then remove the lower ones.* Of two processes at least one lists after the other has made its hold; so
  the lower one gives way or is removed. Holds are only made and removed, never renamed: a listing may miss what is renamed.
- *Removed, not renamed away.* A system call that was already past its path lookup (or an NFS client with cached handles) still
  reaches a renamed directory; in a removed one nothing can be created, found or linked.
- The watermark is the name of an empty file in the hold, ``at-<sequence>``; moving it on is one rename, which fails like the
  others. A successor writes the watermark into its own hold before it removes it from the predecessor's, so that at each moment
  some hold has it: after a crash anywhere the highest one found is right.
- An entry ``open-<name>`` says that a file is being extended in place. A successor that finds one keeps it until it has replaced
  the file by a copy: what the predecessor still writes goes to a file that is no longer visible.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import secrets
import shutil
import time
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["HOLDS", "HeldDirectory", "HoldLost", "acquire", "has_holds", "stored_watermark", "wait_a_moment", "write_all"]

#: The subdirectory of the holds.
HOLDS = ".applied"

_AT = "at-"
_NEW = "new-"
_OLD = "old-"
_OPEN = "open-"
#: What an NFS client makes of a removed file that a process of the same machine still has open. It cannot be removed, but this
#: process sees paths as that one does: renaming the hold away is enough.
_NFS = ".nfs"
#: A hold that is removed answers with these; the second one on NFS.
_REMOVED = (errno.ENOENT, errno.ESTALE)
#: The file system has no hard links, or no more for this file.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
#: So often a hold is begun again because of others that come at the same time.
_TRIES = 100


class HoldLost(Exception):
    """The hold was removed, by a successor or with its directory. What was not committed does not count."""


class _Name(NamedTuple):
    """In order of precedence. `turn` orders holds of one fence; `token` keeps a name from being used twice."""

    fence: int
    turn: int
    token: str

    def __str__(self) -> str:
        return f"{self.fence}-{self.turn}-{self.token}"


class HeldDirectory:
    """A directory that this process may change, with the watermark that it holds.

    Every method raises `HoldLost` once there is a successor. After any other error the hold must be acquired anew: that removes
    what was left half done. Not for concurrent use.
    """

    def __init__(self, place: str, name: str, fence: int) -> None:
        self.place = place
        self.name = name
        self.fence = fence
        self.watermark = 0
        self._staging = f"{place}/{HOLDS}/{name}"
        self._has_watermark = False

    def staged(self, name: str) -> str:
        """The path under which a new file is written before `publish` shows it."""
        return f"{self._staging}/{_NEW}{name}"

    def publish(self, name: str) -> None:
        """Show a staged file, in the place of an older one of that name."""
        try:
            os.rename(f"{self._staging}/{_NEW}{name}", f"{self.place}/{name}")
        except OSError as error:
            raise lost(error) from error

    def put(self, name: str, content: bytes | memoryview) -> None:
        """Write a file, all or nothing: a reader sees the old one or the new one."""
        new = f"{self._staging}/{_NEW}{name}"
        try:
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                write_all(file, content, 0)
            finally:
                os.close(file)
            os.rename(new, f"{self.place}/{name}")
        except OSError as error:
            raise lost(error) from error

    def extend(self, name: str, pieces: Sequence[tuple[int, bytes | memoryview]]) -> bool:
        """Write bytes into a file that exists, each piece at its offset. False if the file system cannot do it safely."""
        link = f"{self._staging}/{_OPEN}{name}"
        try:
            os.link(f"{self.place}/{name}", link)
        except OSError as error:
            if error.errno in _NO_LINKS:
                return False
            raise lost(error) from error
        try:
            file = os.open(link, os.O_WRONLY | os.O_CLOEXEC)
            try:
                for offset, content in pieces:
                    write_all(file, content, offset)
            finally:
                os.close(file)
            os.unlink(link)
        except OSError as error:
            raise lost(error) from error
        return True

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens if there is none."""
        old = f"{self._staging}/{_OLD}{name}"
        try:
            os.rename(f"{self.place}/{name}", old)
        except FileNotFoundError:
            self.verify()
            return
        except OSError as error:
            raise lost(error) from error
        _unlink(old)

    def clear(self, *, last: str = "") -> None:
        """Remove every file; `last` after all others."""
        for name in sorted(os.listdir(self.place), key=lambda name: name == last):
            if name != HOLDS:
                self.remove(name)

    def commit(self, watermark: int) -> None:
        """Everything up to `watermark` is stored. Never goes back (I4)."""
        if watermark <= self.watermark:
            return
        path = f"{self._staging}/{_AT}{watermark}"
        try:
            if self._has_watermark:
                os.rename(f"{self._staging}/{_AT}{self.watermark}", path)
            else:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise lost(error) from error
        self.watermark = watermark
        self._has_watermark = True

    def verify(self) -> None:
        """Raise `HoldLost` if there is a successor: for a batch that changes nothing."""
        try:
            os.stat(self._staging)
        except OSError as error:
            raise lost(error) from error

    def is_valid(self) -> bool:
        """Is there no successor yet?"""
        return os.path.isdir(self._staging)

    def take_over(self, lower: str) -> None:
        """Remove a lower hold. Returns when it is gone, with its watermark and its ``open-`` entries in this one."""
        other = f"{self.place}/{HOLDS}/{lower}"
        while True:
            try:
                entries = os.listdir(other)
            except FileNotFoundError:
                return  # a competitor removed it: what was in it is in a hold that is yet to be removed, or in a higher one
            for entry in entries:
                if entry.startswith(_AT):
                    self.commit(int(entry.removeprefix(_AT)))
                elif entry.startswith(_OPEN):
                    self._keep(f"{other}/{entry}", entry)
                if not entry.startswith(_NFS):
                    _unlink(f"{other}/{entry}")
            try:
                if entries and all(entry.startswith(_NFS) for entry in entries):
                    os.rename(other, f"{self.place}/{HOLDS}/.gone-{secrets.token_hex(4)}")
                    return
                os.rmdir(other)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise  # else: its owner is still at work; it fails at its next step

    def _keep(self, link: str, entry: str) -> None:
        try:
            os.link(link, f"{self._staging}/{entry}")
        except FileExistsError:
            return  # of the same file
        except FileNotFoundError:
            self.verify()

    def replace_open_files(self) -> None:
        """Replace the files that a predecessor may still be writing to. When this returns, no one else writes to any file."""
        for entry in os.listdir(self._staging):
            if not entry.startswith(_OPEN):
                continue
            name = entry.removeprefix(_OPEN)
            try:
                shutil.copyfile(f"{self.place}/{name}", self.staged(name))
                self.publish(name)
            except FileNotFoundError:
                self.verify()  # it was removed since
            _unlink(f"{self._staging}/{entry}")


def acquire(place: str, fence: int) -> HeldDirectory | None:
    """Hold the directory `place`, which exists; None if it has been held under a higher fence.

    A hold under the same fence gives way: it is one of the same worker, or there are no leases. Two processes that do so at the
    same time wait a moment at random. `OSError` if that does not help.
    """
    mine: _Name | None = None
    for attempt in range(_TRIES):
        names = _names(place)
        highest = names[-1] if names else None
        if highest is not None and highest.fence > fence:
            if mine is not None:
                _remove_empty(f"{place}/{HOLDS}/{mine}")
            return None
        if mine is None or highest != mine:
            if mine is not None:
                wait_a_moment(attempt)
            turn = highest.turn + 1 if highest is not None and highest.fence == fence else 1
            mine = _made(place, _Name(fence, turn, secrets.token_hex(4)))
            continue  # list again
        held = HeldDirectory(place, str(mine), fence)
        try:
            for name in names[:-1]:  # the lowest first: a watermark only moves upwards
                held.take_over(str(name))
            held.replace_open_files()
        except (HoldLost, FileNotFoundError):
            continue
        return held
    raise OSError(errno.EBUSY, f"Other processes with the same fence ({fence}) hold it again and again", place)


def wait_a_moment(attempt: int) -> None:
    """Let another process of the same fence finish; longer after more attempts, 200 ms at most."""
    time.sleep(random.uniform(0, min(0.2, 0.001 * 2 ** min(attempt, 10))))


def has_holds(place: str) -> bool:
    """Was the directory held once? Not if it does not exist, or was written by a version without holds."""
    return os.path.isdir(f"{place}/{HOLDS}")


def stored_watermark(place: str) -> int:
    """The watermark of a directory, also of one that is changed at the same time; 0 if there is none."""
    for _ in range(_TRIES):
        names = _names(place)
        found = max((_watermark(f"{place}/{HOLDS}/{name}") for name in names), default=0)
        if set(_names(place)) <= set(names):  # else it may have moved on to a hold that was made meanwhile
            return found
    raise OSError(errno.EBUSY, "It changes hands again and again", place)


def write_all(file: int, content: bytes | memoryview, offset: int) -> None:
    """Write to a file descriptor; the system may take less than it is given (2 GiB at most on Linux)."""
    written = os.pwrite(file, content, offset)
    while written < len(content):
        written += os.pwrite(file, memoryview(content)[written:], offset + written)


def lost(error: OSError) -> OSError | HoldLost:
    """What to raise for an error in a staging directory."""
    return HoldLost(str(error)) if error.errno in _REMOVED else error


def _made(place: str, name: _Name) -> _Name:
    path = f"{place}/{HOLDS}/{name}"
    try:
        os.mkdir(path)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.mkdir(f"{place}/{HOLDS}")
        os.mkdir(path)
    return name


def _remove_empty(hold: str) -> None:
    try:
        os.rmdir(hold)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise  # else: it has a watermark already, which the higher hold takes over


def _names(place: str) -> list[_Name]:
    """All holds, the highest last."""
    try:
        entries = os.listdir(f"{place}/{HOLDS}")
    except FileNotFoundError:
        return []
    parts = (entry.split("-") for entry in entries)
    return sorted(_Name(int(p[0]), int(p[1]), p[2]) for p in parts if len(p) == 3 and p[0].isdigit() and p[1].isdigit())


def _watermark(hold: str) -> int:
    """The highest in this hold. A second look, for a listing may miss an entry that is renamed meanwhile."""
    for _ in range(2):
        try:
            found = [int(e.removeprefix(_AT)) for e in os.listdir(hold) if e.startswith(_AT)]
        except FileNotFoundError:
            return 0
        if found:
            return max(found)
    return 0


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # its owner renamed it, or a competitor removed it
        os.unlink(path)
