"""What somebody sets with the mouse: panes, the read-out under the cursor, colours, levels; and what the strip says meanwhile."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from tests.page.served import SCHEMA, Served, det, points
from tests.page.test_views import corner, frames


def test_several_panes_are_drawn_and_read_out_under_the_cursor(served: Served, tab: Any) -> None:
    path = served.run("panes", 401, ["det"], columns=SCHEMA)
    served.append(path, points(0, 60))
    tab.open("run=panes&x=motor&y=det;seq_num")
    tab.until("page.panes.length === 2 && page.panes.every((pane) => pane.points === 60)")
    assert tab.page.locator("section.pane").count() == 2
    row = 23
    for place, (name, value) in enumerate((("det", det(60)[row]), ("seq_num", float(row + 1)))):
        pane = tab.page.get_by_label(f"Plot of {name} against motor")
        over = pane.locator(".u-over").bounding_box()
        low, high = tab.ask(f"panes[{place}].x")
        tab.page.mouse.move(over["x"] + over["width"] * (row / 10 - low) / (high - low), over["y"] + over["height"] / 2)
        pane.locator("output", has_text="at motor 2.3").wait_for()
        shown = pane.locator("output").inner_text().split(" at ")[0]
        assert float(shown.replace(",", "")) == pytest.approx(value, rel=1e-3)
    tab.page.mouse.move(1, 1)  # away from it: the newest
    tab.page.get_by_label("Plot of det").locator("output", has_text="at motor 5.9").wait_for()


def test_colours_and_levels_are_chosen(served: Served, tab: Any) -> None:
    served.create("", "coloured")
    served.array("coloured", "camera", frames(1))
    tab.open("run=coloured/camera")
    tab.until("page.image?.index[0] === 0 && page.image.painter")
    viridis = (68, 1, 84)
    tab.page.wait_for_timeout(200)
    assert corner(tab, 0.02, 0.02) == viridis
    tab.page.get_by_label("colours").select_option("gray")
    tab.page.wait_for_function("location.search.includes('cmap=gray')")
    tab.page.wait_for_timeout(200)
    darkest, brightest = corner(tab, 0.02, 0.02), corner(tab, 0.98, 0.98)
    assert max(darkest) < 10
    assert min(brightest) > 245
    # All values are between 0 and 1023: with levels of 2000 and 3000 everything is at the dark end.
    for name, level in (("Highest level", "3000"), ("Lowest level", "2000")):
        tab.page.get_by_label(name).fill(level)
        tab.page.keyboard.press("Enter")
    tab.page.wait_for_function("decodeURIComponent(location.search).includes('levels=2000,3000')")
    tab.page.wait_for_timeout(200)
    assert max(corner(tab, 0.98, 0.98)) < 10
    tab.page.get_by_title("Invert the colours").click()
    tab.page.wait_for_timeout(200)
    assert min(corner(tab, 0.98, 0.98)) > 245
    tab.page.get_by_title("Levels by percentile").click()
    tab.page.wait_for_function("!location.search.includes('levels')")


def test_the_strip_says_how_things_stand(served: Served, tab: Any) -> None:
    path = served.run("strip", 402, ["det"], columns=SCHEMA)
    served.append(path, points(0, 5))
    tab.open("run=strip")
    tab.until("page.panes[0]?.points === 5")
    strip = tab.page.locator("footer.status")
    strip.get_by_role("status").get_by_text("live", exact=True).wait_for()
    served.append(path, points(5, 5))
    strip.get_by_text("seq 2", exact=True).wait_for()
    lag = strip.get_by_title("From the record's time").inner_text()
    assert numpy.float64(lag.split()[1]) >= 0
    served.ok("DELETE", f"/stream/close/{path}")
    strip.get_by_role("status").get_by_text("ended", exact=True).wait_for()
