"""The main job, before your eyes: a Bluesky scan goes in, is watched live, is persisted, and is read back equal.

The RunEngine, the TiledWriter and the client are the unmodified packages; the server is `SimpleTiledServer`. Run it with
`make demo`, or `python examples/demo.py DIRECTORY` to keep what it writes. It ends with 1 if anything that is read back differs.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import msgspec
import numpy as np
import pyarrow as pa
from bluesky import RunEngine
from bluesky_tiled_plugins import TiledWriter
from ophyd.sim import SynAxis, SynGauss, SynSignal
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tiled.client import from_uri
from tiled.structures.core import Spec
from websockets.asyncio.client import connect

from tiled_stream import SimpleTiledServer

POINTS = 60
PIXELS = 32
PACE = 0.05  # seconds between points, so that eyes can follow
SHOWN = 8


class Watcher:
    """Follows a run as it happens: the catalog, then the run, its stream, its table and its images, each from the first."""

    def __init__(self, base: str, key: str) -> None:
        self._base = base.replace("http", "ws", 1)
        self._headers = {"Authorization": f"Apikey {key}"}
        self.rows: list[dict[str, Any]] = []
        self.images: list[tuple[int, np.ndarray[Any, Any]]] = []
        self.sequences: dict[str, list[int]] = {}
        self.lags: list[float] = []
        self.ended: list[str] = []

    async def follow(self, path: str, handle: Any, *, start: int | None = 0) -> None:
        """Every update of one node; returns when the producer ends the stream."""
        uri = f"{self._base}/stream/single/{path}?envelope_format=msgpack" + ("" if start is None else f"&start={start}")
        async with connect(uri, additional_headers=self._headers, max_size=None) as socket, asyncio.TaskGroup() as group:
            await socket.recv()  # the schema
            async for message in socket:
                update = msgspec.msgpack.decode(message)
                self.sequences.setdefault(path, []).append(update["sequence"])
                handle(path, update, group)
        self.ended.append(path)

    def child(self, path: str, update: dict[str, Any], group: asyncio.TaskGroup) -> None:
        """A child appeared: follow it too."""
        if update["type"] != "container-child-created":
            return
        handle = {"table": self.table, "array": self.image}.get(update["structure_family"], self.child)
        group.create_task(self.follow(f"{path}/{update['key']}", handle))

    def table(self, _: str, update: dict[str, Any], __: asyncio.TaskGroup) -> None:
        rows = pa.ipc.open_file(update["payload"]).read_all().to_pylist()
        self.lags += [time.time() - row["time"] for row in rows]
        self.rows += rows

    def image(self, _: str, update: dict[str, Any], __: asyncio.TaskGroup) -> None:
        frame = np.frombuffer(update["payload"], "<i8").reshape(update["shape"])
        self.images.append((update["sequence"], frame))

    async def watch_next_run(self, catalog: str, ready: threading.Event) -> None:
        """Follow the catalog until a run appears, then that run to its end."""
        uri = f"{self._base}/stream/single/{catalog}?envelope_format=msgpack"
        async with connect(uri, additional_headers=self._headers) as socket:
            await socket.recv()
            ready.set()
            update = msgspec.msgpack.decode(await socket.recv())
        await self.follow(f"{catalog}/{update['key']}", self.child)


def take_scan(uri: str, key: str, catalog: str) -> tuple[str, list[dict[str, Any]]]:
    """A scan of a motor with a detector and a camera, written point by point; returns the run and its events."""
    motor = SynAxis(name="motor", labels={"motors"})
    detector = SynGauss("detector", motor, "motor", center=0, Imax=1, sigma=1, labels={"detectors"})

    class Camera(SynSignal):
        def describe(self) -> dict[str, Any]:
            described: dict[str, Any] = super().describe()
            described["camera"].update(dtype="array", shape=[PIXELS, PIXELS], dtype_numpy="<i8")
            return described

    y, x = np.mgrid[-1 : 1 : PIXELS * 1j, -1 : 1 : PIXELS * 1j]
    camera = Camera(name="camera", func=lambda: (1000 * np.exp(-((x - motor.position / 5) ** 2 + y**2) * 8)).astype("i8"))
    engine = RunEngine({}, context_managers=[])
    events: list[dict[str, Any]] = []
    engine.subscribe(lambda name, doc: events.append(doc) if name == "event" else None)
    engine.subscribe(TiledWriter(from_uri(uri, api_key=key)[catalog], batch_size=1))

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.one_nd_step(detectors, step, pos_cache)
        yield from bps.sleep(PACE)

    (run,) = engine(bp.scan([detector, camera], motor, -5, 5, POINTS, per_step=per_step), sample="demo")
    return run, events


def picture(watcher: Watcher, progress: Progress) -> Group:
    """The live table and the bar."""
    table = Table(title="live, over a WebSocket", title_justify="left", min_width=70)
    for column in ("seq", "motor", "detector", "", "lag"):
        table.add_column(column, justify="left" if column == "" else "right", min_width=30 if column == "" else 6)
    shown = list(zip(watcher.rows, watcher.lags, strict=False))[-SHOWN:]
    for row, lag in shown:
        bar = "█" * round(28 * row["detector"])
        table.add_row(str(row["seq_num"]), f"{row['motor']:.2f}", f"{row['detector']:.4f}", bar, f"{1e3 * lag:.1f} ms")
    return Group(table, progress)


def differences(client: Any, run: str, events: list[dict[str, Any]], watcher: Watcher) -> list[str]:
    """What is read back, and what was seen live, against what was measured."""
    found: list[str] = []

    def check(same: bool, what: str) -> None:
        if not same:
            found.append(what)

    stream = client[run]["primary"]
    rows = stream.base["internal"].read()
    images = stream["camera"].read()
    measured = np.array([event["data"]["camera"] for event in events])
    for key in ("motor", "detector"):
        values = [event["data"][key] for event in events]
        check(rows[key].tolist() == values, f"{key} read back")
        check([row[key] for row in watcher.rows] == values, f"{key} seen live")
    check(rows["time"].tolist() == [event["time"] for event in events], "times read back")
    check(bool(np.array_equal(images, measured)), "images read back")
    live = np.concatenate([frame for _, frame in watcher.images]) if watcher.images else np.empty(0)
    check(bool(np.array_equal(live, measured)), "images seen live")
    for path, sequences in watcher.sequences.items():
        check(sequences == list(range(1, len(sequences) + 1)), f"sequences of {path}: {sequences}")
    documents = [name for name, _ in client[run].documents()]
    check(documents == ["start", "descriptor", *["event"] * POINTS, "stop"], "documents replayed")
    return found


def main(directory: Path | None) -> int:
    console = Console()
    progress = Progress(TextColumn("scan"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = progress.add_task("scan", total=POINTS)
    with SimpleTiledServer(directory) as server:
        uri = server.uri.split("?")[0]
        client = from_uri(uri, api_key=server.api_key)
        if "demo" not in client:
            client.create_container("demo", specs=[Spec("CatalogOfBlueskyRuns", version="3.0")])
        watcher, ready = Watcher(uri, server.api_key), threading.Event()
        watching = threading.Thread(target=lambda: asyncio.run(watcher.watch_next_run("demo", ready)), daemon=True)
        watching.start()
        ready.wait(10)
        outcome: list[Any] = []
        taking = threading.Thread(target=lambda: outcome.extend(take_scan(uri, server.api_key, "demo")), daemon=True)
        taking.start()
        with Live(picture(watcher, progress), console=console, refresh_per_second=15) as live:
            while watching.is_alive() and (taking.is_alive() or outcome):
                watching.join(0.05)
                progress.update(bar, completed=len(watcher.rows))
                live.update(picture(watcher, progress))
        taking.join(10)
        if not outcome:
            console.print("[red]The scan failed.[/]")
            return 1
        run, events = outcome
        wrong = differences(from_uri(uri, api_key=server.api_key)["demo"], run, events, watcher)
        lags = sorted(watcher.lags)
        console.print(f"\n{len(watcher.rows)} points and {len(watcher.images)} images were seen live, each once and in order;")
        console.print(
            f"from measurement to delivery {1e3 * lags[len(lags) // 2]:.1f} ms (median), {1e3 * lags[-1]:.1f} ms (worst)."
        )
        if wrong:
            console.print("[red]Different:[/] " + "; ".join(wrong))
            return 1
        console.print(f"[green]Read back with the stock client: equal.[/] Streams that ended: {len(watcher.ended)}.\n")
        places = Table(title="where things are", title_justify="left", show_header=False)
        places.add_row("run", f"demo/{run}")
        places.add_row("URL", uri)
        kept = "" if directory else "  (temporary, gone when this ends)"
        places.add_row("catalog", str(server.directory / "catalog.db") + kept)
        places.add_row("tables", str(server.directory / "storage.duckdb") + kept)
        places.add_row("arrays", str(server.directory / "data") + kept)
        places.add_row("log", str(server.directory / "catalog.db.log") if directory else "in memory")
        for path, sequences in sorted(watcher.sequences.items()):
            places.add_row("log position", f"{sequences[-1]:>4}  {path.removeprefix('demo/').replace(run, run[:8])}")
        console.print(places)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
