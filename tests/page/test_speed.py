"""Fast streams: the page takes all of it, keeps drawing, and does not grow without bound."""

from __future__ import annotations

import time
from typing import Any

import numpy
import pyarrow

from tests.page.served import Served

#: A machine without a graphics card, shared by others: what is asked is that nobody waits, not that it is smooth.
LONGEST_DRAW_MS = 400.0
FAST = pyarrow.schema(
    [("seq_num", pyarrow.int64()), ("time", pyarrow.float64()), ("det", pyarrow.float64()), ("noise", pyarrow.float64())]
)


def rows(first: int, count: int) -> pyarrow.Table:
    numbers = numpy.arange(first, first + count)
    return pyarrow.table([numbers, 1e9 + numbers / 1e4, numpy.sin(numbers / 3000), numpy.cos(numbers * 1.7)], schema=FAST)


def test_ten_thousand_rows_a_second(served: Served, tab: Any, record_property: Any) -> None:
    path = served.run("fast", 11, ["det", "noise"], columns=FAST)
    served.append(path, rows(0, 1))
    tab.open("run=fast&x=time")
    tab.until("page.length('det') === 1")
    tab.ask("beginFigures()")
    seconds, batch = 4, 200
    begin = time.monotonic()
    for n in range(seconds * 10_000 // batch):
        while time.monotonic() < begin + n * batch / 10_000:
            time.sleep(0.001)
        served.append(path, rows(1 + n * batch, batch))
    written = time.monotonic() - begin
    total = 1 + seconds * 10_000
    tab.until(f"page.panes[0]?.points === {total}")
    shown = time.monotonic() - begin - written
    assert tab.ask("column('seq_num')") == list(range(total))
    told(tab, record_property, rate=total / written, behind=shown)


def test_twenty_megapixel_frames_a_second(served: Served, tab: Any, record_property: Any) -> None:
    frame = (numpy.indices((1000, 1000)).sum(axis=0) % 4096).astype("<u2")[None]
    served.create("", "video")
    served.array("video", "camera", frame)
    tab.open("run=video/camera")
    tab.until("page.image?.index[0] === 0")
    served.extend("video/camera", 1, frame + 1)
    tab.until("page.image?.index[0] === 1 && page.image.painter")
    tab.ask("beginFigures()")
    seconds, rate = 4, 20
    begin = time.monotonic()
    for n in range(2, seconds * rate):
        while time.monotonic() < begin + n / rate:
            time.sleep(0.001)
        served.extend("video/camera", n, frame + n)
    written = time.monotonic() - begin
    tab.until(f"page.image?.index[0] === {seconds * rate - 1}")
    image = tab.ask("image")
    assert tab.ask("pixel(3, 4)") == 7 + seconds * rate - 1
    # Each frame was shown, or is told as skipped.
    assert image["shown"] + image["skipped"] >= seconds * rate
    told(tab, record_property, rate=(seconds * rate - 2) / written, shown=image["shown"], skipped=image["skipped"])


def told(tab: Any, record_property: Any, **figures: float) -> None:
    """Figures for the report, and that nobody had to wait."""
    drawn = tab.ask("frames")
    heap = tab.page.evaluate("performance.memory.usedJSHeapSize") / 1e6
    figures |= {"heap_mb": heap, "draw_ms": drawn["drawMs"] / max(1, drawn["frames"]), "longest_draw_ms": drawn["longestDrawMs"]}
    for name, value in figures.items():
        record_property(name, round(value, 1))
    print({name: round(value, 1) for name, value in figures.items()})
    assert drawn["longestDrawMs"] < LONGEST_DRAW_MS
    assert heap < 200
