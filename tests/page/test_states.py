"""What is said where there is nothing to draw: no run, no data, no such node, nothing found, nothing that can be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from tests.page.served import SCHEMA, Served, points

EMPTY = ".empty"


def bare(served: Served, key: str, number: int) -> None:
    """A run of which nothing is declared yet."""
    start = {"uid": key, "scan_id": number, "plan_name": "count"}
    served.create("", key, metadata={"start": start}, specs=[{"name": "BlueskyRun", "version": "3.0"}])


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Served(tmp_path_factory.mktemp("blank")) as server:
        yield server


def test_a_new_server_says_what_will_happen(blank: Served, tabs: Any) -> None:
    tab = tabs(blank.url)
    tab.open()
    tab.page.locator("main .empty", has_text="No run yet").wait_for()
    tab.page.locator(".note", has_text="New runs appear by themselves").wait_for()
    blank.run("first", 1, ["det"], columns=SCHEMA)
    tab.page.locator("main h1", has_text="#1 scan").wait_for()
    tab.until("page.panes[0]?.points === 0")  # its axes are there, from the schema


def test_a_run_without_data(served: Served, tab: Any) -> None:
    bare(served, "bare", 900)
    tab.open("run=bare")
    tab.page.locator(EMPTY, has_text="No data yet").wait_for()
    served.create("bare", "primary")
    served.table("bare/primary", "internal", SCHEMA)
    tab.until("page.panes[0]?.points === 0")
    tab.page.get_by_role("tab", name="Table").click()
    tab.page.locator(EMPTY, has_text="No rows yet").wait_for()
    tab.page.get_by_role("tab", name="Images").click()
    tab.page.locator(EMPTY, has_text="No images").wait_for()
    served.append("bare/primary/internal", points(0, 4))
    tab.page.get_by_role("tab", name="Table").click()
    tab.page.locator(EMPTY).wait_for(state="detached")
    tab.until("page.length('det') === 4")


def test_a_run_that_has_data_is_never_said_to_have_none(served: Served, tab: Any) -> None:
    path = served.run("present", 901, ["det"], columns=SCHEMA)
    served.append(path, points(0, 5))
    tab.page.add_init_script(
        """
        window.said = [];
        const look = () => {
          for (const empty of document.querySelectorAll('.empty')) {
            if (getComputedStyle(empty).visibility === 'visible') window.said.push(empty.innerText);
          }
          requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
        """
    )
    tab.open("run=present")
    tab.until("page.panes[0]?.points === 5")
    assert not [said for said in tab.page.evaluate("window.said") if "yet" in said]


def test_a_link_to_what_is_not_there(served: Served, tab: Any) -> None:
    tab.open("run=nowhere/at/all")
    said = tab.page.locator(EMPTY, has_text="It cannot be opened")
    said.wait_for()
    assert "nowhere" in said.inner_text()
    # The rest of the page goes on.
    bare(served, "elsewhere", 902)
    tab.page.locator(".item", has_text="#902").click()
    tab.page.locator("main h1", has_text="#902 count").wait_for()


def test_a_search_without_hits(served: Served, tab: Any) -> None:
    bare(served, "findable", 903)
    tab.open("q=nosuchwordanywhere")
    tab.page.locator(".note", has_text="Nothing matches.").wait_for()


def test_a_node_that_cannot_be_drawn(served: Served, tab: Any) -> None:
    cells = numpy.array(["a", "bb"])
    served.array("", "words", cells)
    tab.open("run=words&tab=plot")
    tab.page.locator(EMPTY, has_text="Nothing to draw in a node of family array").wait_for()


def test_a_lost_server_is_told_and_found_again(tmp_path: Path, tabs: Any) -> None:
    with Served(tmp_path) as server:
        path = server.run("held", 1, ["det"], columns=SCHEMA)
        server.append(path, points(0, 6))
        tab = tabs(server.url)
        tab.open("run=held")
        tab.until("page.panes[0]?.points === 6")
        server.stop()
        tab.page.locator(".state.reconnecting").first.wait_for()
        assert tab.ask("panes[0].points") == 6  # what was drawn stays
        server.start()
        tab.page.locator(".top .state.live").wait_for()
