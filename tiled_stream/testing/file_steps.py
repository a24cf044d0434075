"""Every call by which one thread looks at files or changes them, as a step at which a test can stop or kill that thread.

The calls are replaced for the whole process, as attributes of `os` and `io`; only those of one thread below one directory count.
"""

from __future__ import annotations

import builtins
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["FileSteps", "Killed"]

_OS = ["open", "pwrite", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "listdir", "scandir", "stat", "lstat"]


class Killed(BaseException):
    """The process is dead: each later call of this thread raises it again."""


class FileSteps:
    """Counts the points before and after each call. At number `at` the thread does `action` once; if that raises `Killed`, the
    thread is dead."""

    def __init__(self, root: Path, *, at: int, action: Callable[[], None]) -> None:
        self._root = str(root)
        self._at = at
        self._action = action
        self._thread: int | None = None
        self._is_dead = False
        self.count = 0
        self.is_done = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the first thread, other than this one, that touches a file below the root."""
        places = [(os, name) for name in _OS] + [(builtins, "open"), (io, "open")]
        before = [(module, name, getattr(module, name)) for module, name in places]
        this = threading.get_ident()
        for module, name, function in before:
            setattr(module, name, self._wrapped(function, this))
        try:
            yield
        finally:
            for module, name, function in before:
                setattr(module, name, function)

    def _wrapped(self, function: Callable[..., Any], excepted: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            thread = threading.get_ident()
            if thread == excepted or not self._is_watched(thread, args):
                return function(*args, **kwargs)
            self._point()
            result = function(*args, **kwargs)
            try:
                self._point()
            except BaseException:
                if isinstance(result, io.IOBase):
                    result.close()
                elif function.__name__ == "open" and isinstance(result, int):
                    os.close(result)
                raise
            return result

        return call

    def _is_watched(self, thread: int, args: tuple[Any, ...]) -> bool:
        if self._thread is None and args and str(args[0]).startswith(self._root):
            self._thread = thread
        return thread == self._thread and bool(args) and (isinstance(args[0], int) or str(args[0]).startswith(self._root))

    def _point(self) -> None:
        if self._is_dead:
            raise Killed
        self.count += 1
        if self.count == self._at:
            self.is_done = True
            try:
                self._action()
            except Killed:
                self._is_dead = True
                raise
