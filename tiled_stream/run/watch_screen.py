"""Events as a live table: the nodes with what came of each, and the last rows of the table or children of the container.

What must stay true: what is kept is bounded, however long it is watched; nothing that a server sends is taken for markup.
"""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live as LiveDisplay
from rich.table import Table
from rich.text import Text

from ..client import Appeared, Ended, Event, Gap, Live, Reconnected, TableData
from .watch_lines import summary

__all__ = ["Screen"]

_KEPT = 200
_NODES = 12


class _Line:
    """What is shown of one node."""

    def __init__(self) -> None:
        self.records = 0
        self.sequence = 0
        self.state = ""
        self.last = ""


class Screen:
    """Enter it, and show events."""

    def __init__(self, root: tuple[str, ...], console: Console | None = None) -> None:
        self._root = root
        self._console = console or Console()
        self._nodes: dict[tuple[str, ...], _Line] = {}
        self._rows: deque[dict[str, str]] = deque(maxlen=_KEPT)
        self._rows_of: tuple[str, ...] = ()
        self._said: deque[Text] = deque(maxlen=_KEPT)
        self._drawn_at = 0.0
        self._lag: float | None = None
        self._display = LiveDisplay(console=self._console, auto_refresh=False, get_renderable=self.picture)

    def __enter__(self) -> Screen:
        self._display.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._display.refresh()
        self._display.__exit__(kind, error, trace)

    def show(self, event: Event | None) -> None:
        """Take it in, and draw ten times a second at most."""
        if event is not None:
            self._take(event)
        now = time.monotonic()
        if now - self._drawn_at >= 0.1:
            self._drawn_at = now
            self._display.refresh()

    def picture(self) -> Group:
        """What is on the screen now."""
        height = max(6, self._console.height - min(len(self._nodes), _NODES) - 8)
        return Group(self._overview(), self._table(height) if self._rows else self._log(height))

    def _take(self, event: Event) -> None:
        line = self._nodes.setdefault(event.path, _Line())
        line.sequence = event.sequence
        match event:
            case Live():
                line.state = "live"
            case Ended():
                line.state = "ended"
            case Reconnected():
                line.state = "again"
            case Gap():
                line.state = "GAP"
            case Appeared():
                pass
            case _:
                line.records += 1
                # Of what was there before, it would say how old it is.
                self._lag = time.time() - event.time.timestamp() if line.state == "live" else self._lag
        line.last = summary(event) if not isinstance(event, Live) else line.last
        if isinstance(event, TableData):
            self._take_rows(event)
        elif not isinstance(event, Live | Appeared):
            style = "bold red" if isinstance(event, Gap) else ""
            self._said.append(Text(f"{event.time:%H:%M:%S}  {self._name(event.path)}  {summary(event)}", style=style))

    def _take_rows(self, event: TableData) -> None:
        if event.path != self._rows_of or not event.append:
            self._rows.clear()
            self._rows_of = event.path
        table = event.table
        for row in table.slice(max(0, table.num_rows - _KEPT)).to_pylist():
            shown = {name: f"{value:.6g}" if isinstance(value, float) else str(value)[:24] for name, value in row.items()}
            self._rows.append({"#": str(event.sequence), **shown})

    def _name(self, path: tuple[str, ...]) -> str:
        return "/".join(path[len(self._root) :]) or "/".join(path[-1:]) or "/"

    def _overview(self) -> Table:
        lag = "" if self._lag is None else f"   {1e3 * self._lag:.0f} ms after it was written"
        overview = Table(title=Text(f"{'/'.join(self._root) or '/'}{lag}"), title_justify="left", expand=True, box=None)
        for name in ("node", "records", "sequence", "state", "last"):
            overview.add_column(name, justify="right" if name in ("records", "sequence") else "left", no_wrap=True)
        for path, line in list(self._nodes.items())[-_NODES:]:
            cells = (self._name(path), str(line.records), str(line.sequence), line.state, line.last)
            overview.add_row(*map(Text, cells))
        return overview

    def _table(self, height: int) -> Table:
        table = Table(title=Text(self._name(self._rows_of)), title_justify="left")
        rows = list(self._rows)[-height:]
        names = list(rows[-1])[: max(2, self._console.width // 14)]
        for name in names:
            table.add_column(Text(name), justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(row.get(name, "")) for name in names))
        return table

    def _log(self, height: int) -> Group:
        return Group(*list(self._said)[-height:])
