"""What is shown: images, plain nodes, the state in the address, keys that do not stay in links."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pyarrow
import pytest

from tests.page.served import KEY, SCHEMA, Served, points


def frames(count: int, size: int = 32) -> numpy.ndarray:
    """Frames that can be told apart by every pixel."""
    plane = numpy.arange(size * size, dtype="<u2").reshape(size, size)
    return numpy.stack([plane + 1000 * n for n in range(count)]).astype("<u2")


@pytest.mark.parametrize("painter", ["webgl2", "canvas"])
def test_frames_follow_the_stream_or_the_slider(served: Served, tab: Any, painter: str) -> None:
    key = f"images-{painter}"
    served.create("", key)
    served.array(key, "camera", frames(3))
    tab.open(f"run={key}/camera" + "&plain=1" * (painter == "canvas"))
    tab.until("page.image?.index[0] === 2")
    tab.until(f"page.image.painter === '{painter}'")
    served.extend(f"{key}/camera", 3, frames(5)[3:])
    tab.until("page.image?.index[0] === 4")
    assert tab.ask("image.shape") == [5, 32, 32]
    assert tab.ask("pixel(7, 9)") == 4000 + 9 * 32 + 7
    # The least and the greatest value have the first and the last colour; the picture fills the height.
    assert corner(tab, 0.02, 0.02) == (68, 1, 84)
    assert corner(tab, 0.98, 0.98) == (253, 231, 37)
    tab.page.locator(".slider input").focus()
    tab.page.keyboard.press("Home")
    tab.until("page.image?.index[0] === 0")
    assert "frame=0" in tab.page.url
    served.extend(f"{key}/camera", 5, frames(6)[5:])
    tab.until("page.image?.shape[0] === 6")
    assert tab.ask("pixel(7, 9)") == 9 * 32 + 7
    tab.page.keyboard.press("Tab")
    tab.page.mouse.click(5, 5)
    tab.page.keyboard.press("]")
    tab.until("page.image?.index[0] === 1")


def corner(tab: Any, x: float, y: float) -> tuple[int, ...]:
    """The colour at a place of the frame, as a share of its sides, as the screen shows it."""
    return tuple(
        tab.page.evaluate(
            """([x, y]) => {
              const canvas = document.querySelector('.viewer canvas');
              const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
              copy.drawImage(canvas, 0, 0);
              const side = Math.min(canvas.width, canvas.height);
              const at = (share, length) => Math.round((length - side) / 2 + share * side);
              return [...copy.getImageData(at(x, canvas.width), at(y, canvas.height), 1, 1).data].slice(0, 3);
            }""",
            [x, y],
        )
    )


def test_a_box_is_traced(served: Served, tab: Any) -> None:
    served.create("", "traced")
    served.array("traced", "camera", frames(1))
    tab.open("run=traced/camera&roi=0,0,2,1")
    tab.page.get_by_text("mean 0.5").wait_for()
    served.extend("traced/camera", 1, frames(2)[1:])
    tab.page.get_by_text("mean 1000.5").wait_for()


def test_plain_arrays_and_tables_can_be_opened(served: Served, tab: Any) -> None:
    served.create("", "plain")
    served.array("plain", "trace", numpy.linspace(0, 1, 50))
    served.table("plain", "logbook", pyarrow.schema([("a", pyarrow.int64()), ("word", pyarrow.string())]))
    served.append("plain/logbook", pyarrow.table({"a": [1, 2, 3], "word": ["x", "y", "<b>z</b>"]}))
    tab.open()
    tab.page.locator(".item[data-key=plain] button").click()
    tab.page.locator(".item[data-key=trace] button").click()
    tab.until("page.panes[0]?.points === 50")
    served.extend("plain/trace", 50, numpy.full(10, 0.5))
    tab.until("page.panes[0]?.points === 60")
    assert tab.ask("column('trace')") == [*numpy.linspace(0, 1, 50).tolist(), *[0.5] * 10]
    tab.page.locator(".item[data-key=logbook] button").click()
    tab.page.get_by_role("tab", name="Table").click()
    tab.page.get_by_role("cell", name="<b>z</b>").wait_for()
    served.append("plain/logbook", pyarrow.table({"a": [4], "word": ["last"]}))
    tab.page.get_by_role("cell", name="last").wait_for()


def test_a_scan_that_goes_back_and_forth_is_drawn_as_it_was_taken(served: Served, tab: Any) -> None:
    path = served.run("zigzag", 9, ["det"], columns=SCHEMA)
    motor = [0.0, 1.0, 2.0, 1.0, 0.0]
    rows = points(0, 5).set_column(2, "motor", pyarrow.array(motor))
    served.append(path, rows)
    tab.open("run=zigzag")
    tab.until("page.panes[0]?.points === 5")
    low, high = tab.ask("panes[0].x")
    assert low < 0 < 2 < high
    assert tab.ask("column('motor')") == motor


def test_the_address_holds_what_is_seen(served: Served, tab: Any) -> None:
    path = served.run("linked", 10, ["det"], columns=SCHEMA)
    served.append(path, points(0, 50))
    tab.open("run=linked&theme=dark")
    tab.until("page.panes[0]?.points === 50")
    assert tab.page.evaluate("document.documentElement.dataset.theme") == "dark"
    tab.page.keyboard.press("l")
    tab.page.get_by_label("x", exact=True).select_option("seq_num")
    tab.page.wait_for_url("**ylog=1**")
    tab.page.wait_for_url("**x=seq_num**")
    tab.page.reload()
    tab.until("page.panes[0]?.points === 50")
    assert tab.page.get_by_label("x", exact=True).input_value() == "seq_num"
    assert tab.page.get_by_role("button", name="log", exact=True).get_attribute("aria-pressed") == "true"
    low, high = tab.ask("panes[0].x")
    assert low == pytest.approx(0.51)
    assert high == pytest.approx(50.49)


def test_the_list_is_searched_by_the_server_and_stays_live(served: Served, tab: Any) -> None:
    for n in range(3):
        served.create("", f"sample-{n}", metadata={"start": {"scan_id": 100 + n, "sample": "Ni" if n else "Cu", "time": 1.0}})
    tab.open("q=scan_id>100 sample:N*")
    tab.until("page.runs.length === 2")
    served.create("", "sample-3", metadata={"start": {"scan_id": 103, "sample": "Ni", "time": 1.0}})
    tab.until("page.runs.length === 3")
    assert tab.ask("runs.map((run) => run.scan_id)") == [103, 102, 101]
    tab.page.keyboard.press("/")
    tab.page.keyboard.type(" scan_id<102")
    tab.until("page.runs.length === 1")


def test_a_key_in_a_link_does_not_stay_there(served: Served, tab: Any) -> None:
    tab.open("tab=meta")
    tab.until("page.link === 'live'")
    assert tab.page.url == f"{served.url}/?tab=meta"
    assert [url for url in tab.requests if KEY in url] == [f"{served.url}/?api_key={KEY}&tab=meta"]
    tab.page.reload()
    tab.until("page.link === 'live'")


def test_without_a_key_somebody_signs_in(served: Served, tab: Any) -> None:
    tab.open(key=None)
    field = tab.page.get_by_label("API key")
    field.fill("wrong")
    field.press("Enter")
    tab.page.get_by_role("dialog").get_by_text("Invalid API key").wait_for()
    field.fill(KEY)
    field.press("Enter")
    tab.until("page.link === 'live' && page.runs.length >= 0")
    tab.page.wait_for_selector("dialog[open]", state="detached")


def test_a_run_before_is_drawn_behind_and_compared(served: Served, tab: Any) -> None:
    for n, key in enumerate(("before", "after")):
        path = served.run(key, 200 + n, ["det"], columns=SCHEMA)
        served.append(path, points(0, 20 + n))
        served.client.patch(
            f"/metadata/{key}",
            json={"content-type": "application/merge-patch+json", "metadata": {"start": {"sample": key}}, "specs": None},
        ).raise_for_status()
    tab.open("run=after&ghost=1")
    tab.until("page.panes[0]?.points === 21")
    tab.until("page.panes[0].ghosts === 1")
    tab.page.keyboard.press("4")
    tab.page.get_by_role("button", name="differences to #200").click()
    tab.page.get_by_role("cell", name="start.sample").wait_for()
    assert tab.page.locator(".differences tbody tr").count() == 1


def test_users_sign_in_with_a_password(tmp_path: Any, tabs: Any) -> None:
    provider = {
        "provider": "toy",
        "authenticator": "DictionaryAuthenticator",
        "args": {"users_to_passwords": {"alice": "wonder"}},
    }
    config = {
        "catalog": {"uri": "./catalog.db", "writable_storage": ["./data"], "init_if_not_exists": True},
        "authentication": {"providers": [provider], "tiled_admins": [{"provider": "toy", "id": "alice"}], "secret_keys": ["s"]},
    }
    (tmp_path / "config.yml").write_text(json.dumps(config))
    with Served(tmp_path, config="config.yml") as server:
        tab = tabs(server.url)
        tab.open(key=None)
        tab.page.get_by_label("User").fill("alice")
        tab.page.get_by_label("Password").fill("wrong")
        tab.page.get_by_label("Password").press("Enter")
        tab.page.get_by_role("dialog").get_by_role("alert").wait_for()
        tab.page.get_by_label("Password").fill("wonder")
        tab.page.get_by_label("Password").press("Enter")
        tab.page.wait_for_selector("dialog[open]", state="detached")
        tab.page.get_by_text("New runs appear by themselves").wait_for()
        tab.until("page.link === 'live'")
        tab.page.get_by_text("alice").wait_for()
        assert [url for url in tab.requests if "token=" in url or "wonder" in url] == []
