"""Logs: for people on the console, or a line of JSON each for machines, in which requests have fields of their own.

Never a secret: query strings and headers are not logged. A fault that repeats itself (a full disk, a Redis that cannot be
reached) fills no disk: the same warning or error is logged once in ten seconds, with the number of those left out.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["REQUEST_FIELDS", "Repetitions", "configure"]

_ACCESS = "tiled_stream.access"
#: What the line of a request is made of (`http/shell.py`), in its order. `path` is without the query, which may hold a key.
REQUEST_FIELDS = ("request_id", "client", "client_port", "principal", "method", "path", "status", "milliseconds")


#: Seconds for which repetitions of a line are left out, and how many different lines are remembered.
_QUIET_SECONDS = 10.0
_REMEMBERED = 1000


class _Said(msgspec.Struct):
    """When a line was logged last, and how often it was left out since."""

    at: float
    left_out: int = 0


class Repetitions(logging.Filter):
    """Of the same warning or error one line in `seconds`, and in the next one how many were left out. `clock` gives seconds.

    Lines are the same if they say the same; with an exception, if they are logged at one place with the same exception, because
    the number of a request is in the text then. Lines of requests are not looked at.
    """

    def __init__(self, *, seconds: float = _QUIET_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._said: OrderedDict[tuple[object, ...], _Said] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; one that stands for others says so."""
        if record.levelno < logging.WARNING or record.name == _ACCESS:
            return True
        now, key = self._clock(), _same(record)
        said = self._said.get(key)
        if said is not None and now - said.at < self._seconds:
            said.left_out += 1
            return False
        if said is not None and said.left_out:
            record.msg = f"{record.getMessage()} ({said.left_out} more of these in the last {now - said.at:.0f} s)"
            record.args = ()
        self._said[key] = _Said(now)
        self._said.move_to_end(key)
        if len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return True


def _same(record: logging.LogRecord) -> tuple[object, ...]:
    """What records have in common of which one line is enough."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return record.name, record.levelno, record.getMessage()
    return record.name, record.levelno, record.msg, type(error), str(error)


def configure(*, level: str, log_format: str, access_log: bool, timestamps: bool = True) -> None:
    """Set up logging for this process; called once, by what starts it."""
    import structlog

    stamp: list[Any] = [structlog.processors.TimeStamper(fmt="iso", utc=True)] if timestamps else []
    shared: list[Any] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, *stamp]
    final: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            # Plain tracebacks: the pretty ones show local variables, and so secrets.
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, _fields_of_request] if log_format == "json" else shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        pass_foreign_args=log_format == "json",
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(Repetitions())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # its debug lines are one a statement
    logging.getLogger(_ACCESS).setLevel(logging.INFO if access_log else logging.WARNING)


def _fields_of_request(logger: Any, method: str, event: Any) -> Any:
    """The words of a request's line as fields, so that nobody need take the sentence apart."""
    words = event.pop("positional_args", ())
    if event["logger"] == _ACCESS and isinstance(words, tuple) and len(words) == len(REQUEST_FIELDS):
        event |= zip(REQUEST_FIELDS, words, strict=True)
    return event
