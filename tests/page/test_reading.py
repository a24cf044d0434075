"""What somebody reads off the page or takes from it: numbers of a peak, lines of Python, and that it fits a small screen."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import numpy
import pyarrow
import pyarrow.csv
import pytest

from tests.page.served import KEY, SCHEMA, Served, points


def test_a_known_gaussian_is_measured(served: Served, tab: Any) -> None:
    centre, sigma, height = 1.25, 0.6, 800.0
    motor = numpy.linspace(-4, 6, 401)
    counts = height * numpy.exp(-((motor - centre) ** 2) / (2 * sigma**2))
    numbers = numpy.arange(1, 402)
    path = served.run("gaussian", 301, ["det"], columns=SCHEMA)
    served.append(path, pyarrow.table([numbers, 1e9 + numbers, motor, counts], schema=SCHEMA))
    tab.open("run=gaussian")
    tab.until("page.panes[0]?.points === 401")
    tab.page.locator(".legend .peak", has_text="FWHM").wait_for()
    largest, at, cen, fwhm, com = (float(v) for v in tab.page.locator(".legend .peak b").all_inner_texts())
    assert largest == pytest.approx(counts.max(), rel=1e-3)
    assert at == pytest.approx(motor[counts.argmax()], abs=1e-3)
    assert cen == pytest.approx(centre, abs=2e-3)
    # 2 sqrt(2 ln 2) sigma, of a Gaussian whose foot is zero.
    assert fwhm == pytest.approx(2 * numpy.sqrt(2 * numpy.log(2)) * sigma, rel=2e-3)
    assert com == pytest.approx(numpy.average(motor, weights=counts), abs=2e-3)


@pytest.mark.parametrize("view", ["plot", "table", "meta", "image"])
def test_what_is_copied_as_python_runs(served: Served, tabs: Any, view: str) -> None:
    pytest.importorskip("tiled.client", reason="tiled is not installed; `make setup` does")
    key = f"copied-{view}"
    path = served.run(key, 310, ["det"], columns=SCHEMA)
    served.append(path, points(0, 5))
    served.array(f"{key}/primary", "camera", numpy.arange(12, dtype="<u2").reshape(3, 2, 2))
    tab = tabs(permissions=["clipboard-read", "clipboard-write"])
    tab.open(f"run={key}&tab={view}")
    tab.until("page.length('det') === 5" if view in ("plot", "table") else "page.link === 'live'")
    if view == "image":
        tab.until("page.image?.index[0] === 2")
    tab.page.get_by_role("button", name="copy as Python").click()
    tab.page.wait_for_function("() => navigator.clipboard.readText().then((text) => text.includes('from_uri'))")
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert KEY not in copied
    show = {"plot": "print(list(data['det'])[-1])", "table": "print(len(data))", "meta": "", "image": "print(frame.tolist())"}[
        view
    ]
    lines = "\n".join(line for line in copied.splitlines() if not line.startswith("data.plot"))
    done = subprocess.run(
        [sys.executable, "-c", f"{lines}\n{show}"],
        env=os.environ | {"TILED_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, (copied, done.stderr)
    expected = {"plot": str(points(0, 5)["det"].to_pylist()[-1]), "table": "5", "meta": "310", "image": "[[8, 9], [10, 11]]"}[
        view
    ]
    assert expected in done.stdout


def test_a_table_is_downloaded_whole(served: Served, tab: Any) -> None:
    path = served.run("taken", 320, ["det"], columns=SCHEMA)
    served.append(path, points(0, 300))
    tab.open("run=taken&tab=table")
    tab.page.get_by_text("300 rows").wait_for()
    with tab.page.expect_download() as waiting:
        tab.page.get_by_label("download").select_option("csv")
    content = waiting.value.path().read_bytes()
    assert pyarrow.csv.read_csv(io.BytesIO(content))["det"].to_pylist() == pytest.approx(points(0, 300)["det"].to_pylist())


@pytest.mark.parametrize("view", ["plot", "table", "meta"])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desk", "phone"])
def test_nothing_overflows(served: Served, tab: Any, view: str, size: tuple[int, int]) -> None:
    key = f"fits-{view}-{size[0]}"
    path = served.run(key, 330, ["det"], columns=SCHEMA)
    served.append(path, points(0, 40))
    tab.page.set_viewport_size({"width": size[0], "height": size[1]})
    tab.open(f"run={key}&tab={view}")
    tab.page.locator({"plot": ".legend", "table": ".rows tbody td", "meta": "[role=tabpanel], main"}[view]).first.wait_for()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    # Buttons and choices that are seen lie within the window, so that they can be reached.
    outside = tab.page.evaluate(
        """() => [...document.querySelectorAll('main button, main select, header button, header input')]
          .filter((e) => e.offsetParent && !e.closest('.rows'))
          .filter((e) => { const box = e.getBoundingClientRect(); return box.right > innerWidth + 1 || box.left < -1; })
          .map((e) => e.textContent || e.getAttribute('aria-label'))"""
    )
    assert outside == []


def test_a_small_screen_shows_the_name_of_the_run(served: Served, tab: Any) -> None:
    path = served.run("small", 340, ["det"], columns=SCHEMA)
    served.append(path, points(0, 5))
    tab.page.set_viewport_size({"width": 390, "height": 844})
    tab.open("run=small&tab=meta")
    title = tab.page.get_by_role("heading", name="#340 scan")
    title.wait_for()
    assert title.evaluate("(e) => e.scrollWidth <= e.clientWidth")
    assert tab.page.get_by_placeholder("Find a key or a value").bounding_box()["width"] > 150
