"""``tiled-stream watch``: what happens at a node, on the terminal or line by line.

A table shows its rows as they come, a container its children, a run everything below it. It ends with the stream, and its exit
status says whether all of it came. A terminal, lines of text and lines of JSON are views of one sequence of events.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit, urlunsplit

import typer

from ..domain.errors import Malformed, NotSupported, Unavailable
from .told import told

if TYPE_CHECKING:
    from ..client import Event
    from ..client.sync import Events

__all__ = ["SOMETHING_MISSING", "watch"]

#: Exit status if a gap was announced: what was shown is not all.
SOMETHING_MISSING = 4
_INTERRUPTED = 130
#: Specs of nodes whose streams are followed with them.
_FOLLOWED = ("BlueskyRun", "BlueskyEventStream")
_SECONDS = 10.0
_ALL_SECONDS = 3.0


def watch(
    uri: Annotated[str, typer.Argument(help="The server and the node: http://HOST:8000/a/b, or http://HOST:8000/api/v1/a/b.")],
    path: Annotated[str, typer.Argument(help="The node, below the one in the address.")] = "",
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="TILED_API_KEY", show_envvar=True, help="The key. Default: that of the address."),
    ] = None,
    start: Annotated[
        int,
        typer.Option("--start", min=-1, help="0 (default): everything that is kept; N: from sequence N; -1: only what comes."),
    ] = 0,
    once: Annotated[
        bool,
        typer.Option("--once/--until-end", help="End when everything that is there was shown, or with the stream (default)."),
    ] = False,
    subtree: Annotated[
        bool | None,
        typer.Option("--subtree/--no-subtree", help="Follow the nodes below too. Default: for a run and its streams."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each event.")] = False,
) -> None:
    """Show what happens at a node while it happens."""
    try:
        with told():
            status = _watch(
                uri, path, api_key=api_key, start=None if start < 0 else start, once=once, subtree=subtree, as_json=as_json
            )
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except BrokenPipeError:  # whoever read this has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    raise typer.Exit(status)


def _watch(
    uri: str, path: str, *, api_key: str | None, start: int | None, once: bool, subtree: bool | None, as_json: bool
) -> int:
    from ..client import subscribe_sync

    try:
        server, node = split(uri)
        below = _is_followed(server, f"{node}/{path}", api_key) if subtree is None else subtree
        events = subscribe_sync(server, f"{node}/{path}", api_key=api_key, start=start, subtree=below)
    except Malformed as error:
        raise typer.BadParameter(str(error)) from None
    try:
        with events:
            return _shown(events, subtree=below, once=once, as_json=as_json)
    except NotSupported:
        if subtree:
            raise
    with subscribe_sync(server, f"{node}/{path}", api_key=api_key, start=start) as events:
        return _shown(events, subtree=False, once=once, as_json=as_json)


def split(uri: str) -> tuple[str, str]:
    """The server and the node of an address. Without ``/api/v1`` in it its path is all of the node."""
    parts = urlsplit(uri)
    if "/metadata" in parts.path or parts.path.rstrip("/").endswith("/api/v1"):
        return uri, ""
    root, api, node = parts.path.partition("/api/v1/")
    if not api:
        root, node = "", parts.path
    return urlunsplit(parts._replace(path=root + api.rstrip("/"))), node


def _is_followed(server: str, path: str, api_key: str | None) -> bool:
    """Whether the node is a run or a stream of one, whose data lie in the nodes below."""
    import httpx

    from ..client.about import node_of

    try:
        node = node_of(server, path, api_key=api_key, seconds=_SECONDS)
    except httpx.HTTPError as error:
        raise Unavailable(f"The server cannot be reached: {type(error).__name__}.") from None
    return any(spec in _FOLLOWED for spec in node.specs)


def _shown(events: Events, *, subtree: bool, once: bool, as_json: bool) -> int:
    """Show until it is over; the exit status."""
    from ..client import Appeared, Ended, Gap, Live

    missing = False
    root = events.subscription.path
    behind = {root}  # nodes of which something that was there may still come
    caught_up: float | None = None
    with ExitStack() as stack:
        show = _view(stack, root, as_json=as_json)
        for event in _ticking(events):
            show(event)
            missing = missing or isinstance(event, Gap)
            if isinstance(event, Appeared):
                behind.add(event.path)
            elif isinstance(event, Live | Ended):
                behind.discard(event.path)
            if behind:
                caught_up = None
            elif caught_up is None:
                caught_up = time.monotonic()
            # Nodes of a subtree are announced one after the other: a moment of silence, or some seconds, say that these were all.
            if once and caught_up is not None and (not subtree or event is None or time.monotonic() - caught_up > _ALL_SECONDS):
                break
    return SOMETHING_MISSING if missing else 0


def _view(stack: ExitStack, root: tuple[str, ...], *, as_json: bool) -> Callable[[Event | None], None]:
    """What shows an event, or (None) that time goes by."""
    if as_json:
        from .watch_lines import json_line

        return lambda event: _line(json_line(event)) if event is not None else None
    if not sys.stdout.isatty():
        from .watch_lines import text_line

        return lambda event: _line(text_line(event)) if event is not None else None
    from .watch_screen import Screen

    return stack.enter_context(Screen(root)).show


def _ticking(events: Events) -> Iterator[Event | None]:
    """The events, and None while none come, a few times a second."""
    while True:
        event = events.next(0.25)
        if event is None and events.is_over:
            return
        yield event


def _line(text: str) -> None:
    if text:
        print(text, flush=True)
