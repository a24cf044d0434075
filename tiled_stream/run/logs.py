"""Logs: for people on the console, or a line of JSON each for machines, in which requests have fields of their own.

Never a secret: query strings and headers are not logged.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["REQUEST_FIELDS", "configure"]

_ACCESS = "tiled_stream.access"
#: What the line of a request is made of (`http/shell.py`), in its order. `path` is without the query, which may hold a key.
REQUEST_FIELDS = ("request_id", "client", "client_port", "principal", "method", "path", "status", "milliseconds")


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
