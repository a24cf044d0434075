"""A running scan, taken by the real RunEngine and TiledWriter, seen by this client."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.client.served import KEY, Served
from tiled_stream.client import ChildCreated, ChildUpdated, Columns, Ended, Reconnected, subscribe_sync

pytestmark = pytest.mark.skipif(importlib.util.find_spec("bluesky") is None, reason="bluesky is not installed; `make setup` does")

Name = Callable[[str], str]
ROOT = Path(__file__).parents[2]
POINTS = 25


def scan(uri: str, key: str, container: str) -> list[dict[str, Any]]:
    """A scan into a container; its events as the RunEngine said them."""
    import bluesky.plan_stubs as bps
    import bluesky.plans as bp
    from bluesky import RunEngine
    from bluesky_tiled_plugins import TiledWriter
    from ophyd.sim import SynAxis, SynGauss
    from tiled.client import from_uri

    motor = SynAxis(name="motor", labels={"motors"})
    det = SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1, labels={"detectors"})
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, context_managers=[], loop=loop)
    events: list[dict[str, Any]] = []
    engine.subscribe(lambda name, doc: events.append(doc) if name == "event" else None)
    client = from_uri(uri, api_key=key)
    engine.subscribe(TiledWriter(client[container], batch_size=1))

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.one_nd_step(detectors, step, pos_cache)
        yield from bps.sleep(0.02)

    engine(bp.scan([det], motor, -5, 5, POINTS, per_step=per_step))
    client.context.http_client.close()
    # The engine leaves its loop running, in a thread of its own.
    loop.call_soon_threadsafe(loop.stop)
    for thread in threading.enumerate():
        if thread is engine._th:
            thread.join(10)
    loop.close()
    return events


@pytest.fixture
def runs(server: Served, fresh: Name) -> str:
    name = fresh("runs")
    server.container(name, spec="CatalogOfBlueskyRuns")
    return name


def first_child(uri: str, path: Any, start: int | None = 0) -> ChildCreated:
    with subscribe_sync(uri, path, start=start) as events:
        return next(event for event in events if isinstance(event, ChildCreated))


def has_many(server: Served) -> bool:
    """Whether this server has a socket for many nodes."""
    uri = f"ws://127.0.0.1:{server.port}/api/v1/stream/many?envelope_format=msgpack"
    try:
        with connect(uri, additional_headers={"Authorization": f"Apikey {KEY}"}):
            return True
    except InvalidStatus:
        return False


def test_node_by_node(server: Served, runs: str) -> None:
    """As a program does that knows no subtrees: the run, its stream, its table, each as it appears, and every point live."""
    taken: list[list[dict[str, Any]]] = []
    scanning = threading.Timer(0.3, lambda: taken.append(scan(server.uri.split("?")[0], KEY, runs)))
    scanning.start()
    run = first_child(server.uri, runs, start=None)
    stream = first_child(server.uri, run.child)
    table = first_child(server.uri, stream.child)
    assert ([spec.name for spec in run.specs], table.family) == (["BlueskyRun"], "table")
    lengths, columns = [], Columns()
    with subscribe_sync(server.uri, table.child, start=0) as events:
        for columns in events.table("motor", "det", every=0.05):
            lengths.append(len(columns))
    scanning.join()
    (events_said,) = taken
    assert columns["motor"].tolist() == [event["data"]["motor"] for event in events_said]
    assert columns["det"].tolist() == [event["data"]["det"] for event in events_said]
    assert len(lengths) >= 3  # while it ran, not afterwards
    with subscribe_sync(server.uri, runs, start=0) as updates:
        assert isinstance(next(updates), ChildCreated)
        stop = next(updates)
    assert isinstance(stop, ChildUpdated)
    assert stop.metadata["stop"]["exit_status"] == "success"


def test_the_example(server: Served, runs: str, tmp_path: Path) -> None:
    """Somebody starts the program, then a scan is taken: it draws all points and ends with the scan."""
    if not has_many(server):
        pytest.skip("this server has no socket for many nodes yet")
    picture = tmp_path / "plot.png"
    words = [server.uri, runs, "motor", "det", "--save", str(picture), "--start", "0"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "live_plot.py"), *words],
        env={**os.environ, "MPLBACKEND": "agg", "MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        scan(server.uri.split("?")[0], KEY, runs)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(10)
    assert said == f"{POINTS} points\n"
    assert process.returncode == 0
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_run_as_one_subtree(server: Served, runs: str) -> None:
    if not has_many(server):
        pytest.skip("this server has no socket for many nodes yet")
    events_said = scan(server.uri.split("?")[0], KEY, runs)
    run = first_child(server.uri, runs)
    with subscribe_sync(server.uri, run.child, subtree=True, start=0) as events:
        seen = list(events)
    columns = Columns(("motor", "det"))
    for event in seen:
        columns.take(event)
    assert columns["motor"].tolist() == [event["data"]["motor"] for event in events_said]
    assert isinstance(seen[-1], Ended)
    assert seen[-1].path == run.child
    assert not any(isinstance(event, Reconnected) for event in seen)
