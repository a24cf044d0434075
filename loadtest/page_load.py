"""What the live page costs a browser: a table of 10,000 rows/s in one tab and 20 frames/s of a megapixel in another, at once.

It starts a server and a headless chromium of its own and leaves neither behind. Frame times are the intervals between animation
frames as the page sees them, the heap is that of the tab at the end. Run it from the root of the repository:

    python -m loadtest.page_load --seconds 60
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy
import pyarrow
from playwright.sync_api import Page, sync_playwright

from tests.page.conftest import ARGUMENTS, CHROMIUM
from tests.page.served import KEY, Served

__all__ = ["main"]

ROWS_PER_BATCH, BATCHES_PER_SECOND, FRAMES_PER_SECOND = 100, 100, 20
SCHEMA = pyarrow.schema([("seq_num", pyarrow.int64()), ("time", pyarrow.float64()), ("det", pyarrow.float64())])

WATCH = """() => {
  window.intervals = [];
  let last = performance.now();
  const tick = (now) => { window.intervals.push(now - last); last = now; requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""


def rows(first: int, count: int) -> pyarrow.Table:
    numbers = numpy.arange(first, first + count)
    return pyarrow.table([numbers, 1e9 + numbers / 1e4, numpy.sin(numbers / 3000)], schema=SCHEMA)


def paced(rate: int, seconds: float, write: Any, written: dict[str, float], name: str) -> None:
    """Call `write(n)` so many times a second; who falls behind does not skip."""
    begin = time.monotonic()
    for n in range(round(rate * seconds)):
        time.sleep(max(0.0, begin + n / rate - time.monotonic()))
        write(n)
    written[name] = rate * seconds / (time.monotonic() - begin)


def figures(page: Page) -> dict[str, float]:
    intervals = numpy.array(page.evaluate("window.intervals.slice(1)"))
    p50, p95 = numpy.percentile(intervals, [50, 95])
    heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
    return {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "longest_ms": round(intervals.max(), 1), "heap_mb": round(heap, 1)}


def measure(served: Served, browser: Any, seconds: float) -> dict[str, Any]:
    table = served.run("fast", 1, ["det"], columns=SCHEMA)
    served.append(table, rows(0, 1))
    frame = (numpy.indices((1000, 1000)).sum(axis=0) % 4096).astype("<u2")[None]
    served.create("", "video")
    served.array("video", "camera", frame)
    pages = {}
    for name, query, is_there in (
        ("plot", "run=fast&x=time", "__tiled_stream__.length('det') === 1"),
        ("image", "run=video/camera", "__tiled_stream__.image?.index[0] === 0"),
    ):
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(f"{served.url}/?api_key={KEY}&{query}")
        page.wait_for_function(f"() => {is_there}")
        page.evaluate(WATCH)
        pages[name] = page
    written: dict[str, float] = {}
    writers = [
        threading.Thread(
            target=paced,
            args=(
                BATCHES_PER_SECOND,
                seconds,
                lambda n: served.append(table, rows(1 + 100 * n, ROWS_PER_BATCH)),
                written,
                "batches",
            ),
        ),
        threading.Thread(
            target=paced,
            args=(FRAMES_PER_SECOND, seconds, lambda n: served.extend("video/camera", 1 + n, frame + n), written, "frames"),
        ),
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    total = 1 + round(BATCHES_PER_SECOND * seconds) * ROWS_PER_BATCH
    begin = time.monotonic()
    pages["plot"].wait_for_function(f"() => __tiled_stream__.length('det') === {total}", timeout=60_000)
    behind = time.monotonic() - begin
    told = {name: figures(page) for name, page in pages.items()}
    told["image"] |= {key: pages["image"].evaluate("__tiled_stream__.image")[key] for key in ("shown", "skipped")}
    told["written"] = {
        "rows_per_second": round(written["batches"] * ROWS_PER_BATCH),
        "frames_per_second": round(written["frames"], 1),
        "page_behind_at_end_s": round(behind, 2),
    }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description="What the live page costs a browser.")
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as directory, Served(Path(directory)) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            print(json.dumps(measure(served, browser, seconds), indent=2))
        finally:
            browser.close()


if __name__ == "__main__":
    main()
