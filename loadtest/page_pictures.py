"""The pictures of the live page in docs/images, taken of a real server that is written to meanwhile.

It starts a server and a headless chromium of its own and leaves neither behind. Run it from the root of the repository after the
page has changed its looks:

    python -m loadtest.page_pictures
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy
import pyarrow
from playwright.sync_api import Browser, Page, sync_playwright

from tests.http.conftest import array_structure
from tests.page.conftest import ARGUMENTS, CHROMIUM
from tests.page.served import KEY, Served

__all__ = ["main"]

POINTS, SEEN = 31, 22
SAMPLES = ("LaB6", "Cu grid", "Si 111", "Ni foil")
SCHEMA = pyarrow.schema([(name, pyarrow.float64()) for name in ("time", "motor", "det", "det2")])
RANDOM = numpy.random.default_rng(7)


def motor(point: int) -> float:
    return -4 + 8 * point / (POINTS - 1)


def row(point: int) -> pyarrow.Table:
    """Two detectors over a motor; the first counts, and is as noisy as counting is."""
    x = motor(point)
    det = RANDOM.poisson(1000 * numpy.exp(-((x - 0.4) ** 2) / 2.4))
    return pyarrow.table([[float(v)] for v in (time.time(), x, det, 20 * numpy.exp(-((x + 1) ** 2) / 8))], schema=SCHEMA)


def frame(point: int) -> numpy.ndarray:
    """Rings of a powder that grow with the motor, and a spot; uint16, (1, 480, 640)."""
    y, x = numpy.indices((480, 640), dtype=float)
    radius = numpy.hypot(x - 320, y - 240)
    rings = sum(400 / n * numpy.exp(-((radius - n * (55 + 2 * motor(point))) ** 2) / 30) for n in range(1, 6))
    spot = 1500 * numpy.exp(-((x - 430 - 3 * point) ** 2 + (y - 150) ** 2) / 120)
    return RANDOM.poisson(rings + spot).astype("<u2")[None]


def begin(served: Served, number: int) -> str:
    """A run with a table and a camera, and nothing measured yet; its path."""
    uid = str(UUID(int=int(RANDOM.integers(1 << 62)) << 64 | number, version=4))
    start: dict[str, Any] = {"uid": uid, "scan_id": number, "plan_name": "scan", "time": time.time()}
    start |= {"sample": SAMPLES[number % 4], "user": "kim", "motors": ["motor"], "num_points": POINTS}
    start["hints"] = {"dimensions": [[["motor"], "primary"]]}
    served.create("", uid, metadata={"start": start}, specs=[{"name": "BlueskyRun", "version": "3.0"}])
    hints = {"det": {"fields": ["det"]}, "det2": {"fields": ["det2"]}}
    stream = {"hints": hints, "data_keys": {"det": {"units": "counts"}, "det2": {"units": "counts"}}}
    served.create(uid, "primary", metadata=stream, specs=[{"name": "BlueskyEventStream", "version": "3.0"}])
    served.table(f"{uid}/primary", "internal", SCHEMA)
    structure = array_structure(frame(0), [[1], [480], [640]])
    source = {"structure_family": "array", "structure": structure, "management": "writable"}
    served.create(f"{uid}/primary", "camera", "array", data_sources=[source])
    return uid


def measure(served: Served, run: str, points: range, *, pause: float) -> None:
    for point in points:
        served.append(f"{run}/primary/internal", row(point))
        if point == 0:
            octets = {"Content-Type": "application/octet-stream"}
            served.ok("PUT", f"/array/full/{run}/primary/camera", content=frame(0).tobytes(), headers=octets)
        else:
            served.extend(f"{run}/primary/camera", point, frame(point))
        time.sleep(pause)


def end(served: Served, run: str) -> None:
    stop = {"exit_status": "success", "time": time.time(), "num_events": {"primary": POINTS}}
    start = served.ok("GET", f"/metadata/{run}").json()["data"]["attributes"]["metadata"]["start"]
    served.ok("PUT", f"/metadata/{run}", json={"metadata": {"start": start, "stop": stop}})
    served.ok("DELETE", f"/stream/close/{run}")


def opened(browser: Browser, served: Served, query: str, **options: Any) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 760}, **options).new_page()
    page.goto(f"{served.url}/?api_key={KEY}&{query}")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path("docs/images"), help="where the pictures go")
    into: Path = parser.parse_args().into
    with (
        tempfile.TemporaryDirectory() as directory,
        Served(Path(directory)) as served,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS) as browser,
    ):
        for number in range(1201, 1208):
            run = begin(served, number)
            measure(served, run, range(POINTS if number == 1207 else 5), pause=0)
            end(served, run)
        run = begin(served, 1208)
        choice = f"run={run}&y=det;det2&ghost=1"
        dark = opened(browser, served, choice, color_scheme="dark")
        light = opened(browser, served, choice, color_scheme="light")
        images = opened(browser, served, f"run={run}&tab=image", color_scheme="dark")
        measure(served, run, range(SEEN), pause=0.13)
        for page in (dark, light):
            page.wait_for_function(f"() => __tiled_stream__.panes.every((pane) => pane.points === {SEEN})")
        images.wait_for_function(f"() => __tiled_stream__.image?.index[0] === {SEEN - 1}")
        for name, page in (("dark", dark), ("light", light), ("images", images)):
            page.screenshot(path=into / f"live-page-{name}.png", animations="disabled")
        end(served, run)


if __name__ == "__main__":
    main()
