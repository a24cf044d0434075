"""The page against a real server: a scan appears by itself, and what is drawn is what was measured."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import weakref
from typing import Any

import pytest

from tests.page.served import KEY, SCHEMA, Served, det, points

POINTS = 30


def scan(url: str, events: list[dict[str, Any]], gates: dict[int, threading.Event]) -> None:
    """A scan of the real RunEngine; after so many points it waits for the gate."""
    import bluesky.plan_stubs as bps
    import bluesky.plans as bp
    from bluesky import RunEngine
    from bluesky_tiled_plugins import TiledWriter
    from ophyd.sim import SynAxis, SynGauss
    from tiled.client import from_uri

    motor = SynAxis(name="motor", labels={"motors"})
    detector = SynGauss("det", motor, "motor", center=0, Imax=100, sigma=1, labels={"detectors"})
    engine = RunEngine({"scan_id": 41}, context_managers=[], loop=asyncio.new_event_loop())
    engine.subscribe(lambda name, doc: events.append(doc) if name == "event" else None)
    client = from_uri(f"{url}/api/v1", api_key=KEY)
    # Whatever becomes of the scan, no connection is left to the collector.
    weakref.finalize(engine, client.context.http_client.close)
    engine.subscribe(TiledWriter(client, batch_size=1))

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.one_nd_step(detectors, step, pos_cache)
        if len(events) in gates:
            gates[len(events)].wait(20)

    engine(bp.scan([detector], motor, -3, 3, POINTS, per_step=per_step), sample="Ni")


@pytest.mark.skipif(importlib.util.find_spec("bluesky") is None, reason="bluesky is not installed; `make setup` does")
def test_a_scan_appears_and_is_drawn_while_it_runs(served: Served, tab: Any) -> None:
    tab.open()
    tab.until("page.link === 'live'")
    events: list[dict[str, Any]] = []
    gates = {POINTS // 2: threading.Event(), POINTS * 3 // 4: threading.Event()}
    thread = threading.Thread(target=scan, args=(served.url, events, gates), daemon=True)
    thread.start()
    try:
        tab.until(f"page.length('det') === {POINTS // 2} && page.panes[0]?.points === {POINTS // 2}")
        assert tab.page.locator(".item.fresh .badge.live").count() == 1
        gates[POINTS // 2].set()  # the list follows the run by now; what comes next has a rate
        tab.page.wait_for_selector(".item.fresh .rate")
    finally:
        for gate in gates.values():
            gate.set()
    tab.until(f"page.panes[0]?.points === {POINTS}")
    tab.until("page.runs.some((run) => run.scan_id === 42 && run.stop)")
    thread.join(20)
    for name in ("motor", "det"):
        assert tab.ask(f"column('{name}')") == [event["data"][name] for event in events]
    tab.page.wait_for_selector(".title .badge.done")
    assert tab.page.locator(".legend .peak").inner_text().startswith("max ")
    assert colour_at(tab, events[POINTS // 2]["data"]) == (0, 114, 178)


def colour_at(tab: Any, data: dict[str, float]) -> tuple[int, ...]:
    """The colour of the canvas where a point must be."""
    return tuple(
        tab.page.evaluate(
            """([x, y]) => {
              const [left, top] = __tiled_stream__.pixelOf(0, x, y);
              const canvas = document.querySelector('.pane canvas');
              return [...canvas.getContext('2d').getImageData(Math.round(left), Math.round(top), 1, 1).data].slice(0, 3);
            }""",
            [data["motor"], data["det"]],
        )
    )


def test_a_server_that_restarts_leaves_no_hole_and_no_double(served: Served, tab: Any) -> None:
    path = served.run("restarted", 7, ["det"], columns=SCHEMA)
    served.append(path, points(0, 20))
    tab.open("run=restarted")
    tab.until("page.length('det') === 20")
    served.append(path, points(20, 1))
    tab.until("page.length('det') === 21")
    served.stop()
    tab.until("page.link !== 'live'")
    served.start()
    for n in range(21, 40):
        served.append(path, points(n, 1))
    tab.until("page.length('det') >= 40 && page.link === 'live'")
    served.append(path, points(40, 1))
    tab.until("page.length('det') >= 41")
    assert tab.ask("column('det')") == det(41)
    assert tab.ask("column('seq_num')") == list(range(1, 42))
    assert [feed["gaps"] for feed in tab.ask("feeds")] == [0]
    # A run that is created after the restart slides in as before.
    served.create("", "afterwards")
    tab.until("page.runs.some((run) => run.path === 'afterwards' && run.fresh)")


def test_what_the_log_let_go_is_read_from_storage(tmp_path: Any, tabs: Any) -> None:
    settings = {"TILED_STREAM_CACHE_DATA_TTL": "0", "TILED_STREAM_PERSIST_LINGER_SECONDS": "0.01"}
    with Served(tmp_path, **settings) as server:
        path = server.run("old", 1, ["det"], columns=SCHEMA)
        for n in range(10):
            server.append(path, points(5 * n, 5))
        # Read once: a reader waits until all of it is persisted, and the log lets go.
        server.ok("GET", f"/table/full/{path}?format=json")
        tab = tabs(server.url)
        tab.open("run=old")
        tab.until("page.length('det') >= 50")
        for n in range(10, 20):
            server.append(path, points(5 * n, 5))
        tab.until("page.length('det') >= 100")
        assert tab.ask("column('det')") == det(100)
        server.ok("DELETE", f"/stream/close/{path}")
        tab.until("page.feeds[0].state === 'ended'")
        tab.open("run=old")
        tab.until("page.length('det') >= 100")
        assert tab.ask("column('det')") == det(100)


def test_pause_freezes_the_picture_and_loses_nothing(served: Served, tab: Any) -> None:
    path = served.run("paused", 8, ["det"], columns=SCHEMA)
    served.append(path, points(0, 10))
    tab.open("run=paused")
    tab.until("page.panes[0]?.points === 10")
    tab.page.keyboard.press("Space")
    served.append(path, points(10, 5))
    tab.page.get_by_text("5 new points").wait_for()
    assert tab.ask("panes[0].points") == 10
    assert "pause=10" in tab.page.url
    tab.page.keyboard.press("Space")
    tab.until("page.panes[0]?.points === 15")
    assert tab.ask("column('det')") == det(15)
