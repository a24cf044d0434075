"""From a request to a message at a receiver, through a whole server and real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.webhooks.receiver import Receiver, WebhookApi, is_signed, receiving
from tiled_stream import SimpleTiledServer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def server() -> Iterator[SimpleTiledServer]:
    with SimpleTiledServer(enable_webhooks=True) as server:
        yield server


@pytest.fixture
def api(server: SimpleTiledServer) -> Iterator[WebhookApi]:
    yield from apis(server)


def apis(server: SimpleTiledServer) -> Iterator[WebhookApi]:
    api = WebhookApi(f"http://127.0.0.1:{server.port}/api/v1", server.api_key)
    yield api
    api.http.close()


def settled(api: WebhookApi, id: int, outcome: str = "success") -> None:
    """Until nothing is pending and the last has this outcome."""
    end = time.monotonic() + 10
    while not (history := api.history(id)) or history[0]["outcome"] != outcome:
        assert time.monotonic() < end, history
        time.sleep(0.02)


def test_what_each_event_says(api: WebhookApi, receiver: Receiver) -> None:
    api.register(receiver.url)
    api.create("run", metadata={"sample": "Ni"}, specs=[{"name": "Run", "version": "1"}])
    api.ok("PUT", "/metadata/run", json={"metadata": {"sample": "Cu"}})
    api.ok("PUT", "/metadata/run", json={"specs": []})
    api.ok("DELETE", "/stream/close/run")
    got = receiver.wait(4)
    of_root = [each.json for each in got if each.json["type"] != "stream-closed"]
    (closed,) = [each.json for each in got if each.json["type"] == "stream-closed"]
    for said in [*of_root, closed]:
        assert said.pop("timestamp").endswith("Z")
    assert of_root == [
        {
            "type": "container-child-created",
            "key": "run",
            "path": ["run"],
            "structure_family": "container",
            "specs": [{"name": "Run", "version": "1"}],
            "metadata": {"sample": "Ni"},
        },
        {
            "type": "container-child-metadata-updated",
            "key": "run",
            "path": ["run"],
            "specs": [{"name": "Run", "version": "1"}],
            "metadata": {"sample": "Cu"},
        },
        {
            "type": "container-child-metadata-updated",
            "key": "run",
            "path": ["run"],
            "specs": [],
            "metadata": {"sample": "Cu"},  # although only the specs were sent
        },
    ]
    assert closed == {"type": "stream-closed", "key": "run", "path": ["run"]}
    assert len({each.id for each in got}) == 4
    assert all("x-tiled-signature" not in each.headers for each in got)
    assert {each.headers["content-type"] for each in got} == {"application/json"}


def test_an_event_is_told_when_it_happened(api: WebhookApi, receiver: Receiver) -> None:
    api.register(receiver.url)
    before = time.time()
    api.create("a")
    after = time.time()
    (got,) = receiver.wait(1)
    assert before <= datetime.fromisoformat(got.json["timestamp"]).timestamp() <= after


def test_with_a_secret_messages_are_signed(api: WebhookApi, receiver: Receiver, server: SimpleTiledServer) -> None:
    id = api.register(receiver.url, secret="s3cret")
    api.create("a", metadata={"x": "ü"})
    (got,) = receiver.wait(1)
    assert is_signed(got, "s3cret")
    assert not is_signed(got, "other")
    # And nobody gets to see it again, not even in the file.
    assert "s3cret" not in api.http.get("/webhooks/target").text + api.http.get(f"/webhooks/history/{id}").text
    assert all(b"s3cret" not in file.read_bytes() for file in Path(server.directory).glob("*webhooks*"))


def test_events_that_were_not_asked_for_are_not_told(api: WebhookApi, receiver: Receiver) -> None:
    api.register(receiver.url, events=["container-child-metadata-updated"])
    api.create("a")
    api.ok("DELETE", "/stream/close/a")
    api.ok("PUT", "/metadata/a", json={"metadata": {"x": 1}})
    receiver.wait(1)
    time.sleep(0.6)
    assert [got.json["type"] for got in receiver.got] == ["container-child-metadata-updated"]


def test_a_node_tells_of_itself_and_of_what_is_below(api: WebhookApi, receiver: Receiver) -> None:
    api.create("a")
    api.create("b")
    api.create("a/deep")
    id = api.register(receiver.url, "a")
    api.create("a/deep/child")
    api.create("b/child")
    api.ok("PUT", "/metadata/a", json={"metadata": {"x": 1}})
    receiver.wait(2)
    time.sleep(0.6)
    assert sorted(receiver.paths()) == ["a", "a/deep/child"]  # nothing of b, and nothing from before
    assert [webhook["id"] for webhook in api.ok("GET", "/webhooks/target/a")] == [id]
    assert api.ok("GET", "/webhooks/target/") == []


def test_what_ends_is_not_told_any_more(api: WebhookApi, receiver: Receiver) -> None:
    first, second = api.register(receiver.url), api.register(receiver.url)
    assert api.ok("DELETE", f"/webhooks/{first}") == {"deleted": first}
    api.create("a")
    receiver.wait(1)
    time.sleep(0.5)
    assert len(receiver.got) == 1
    settled(api, second)
    for method, path in (("DELETE", f"/webhooks/{first}"), ("GET", f"/webhooks/history/{first}"), ("DELETE", "/webhooks/x")):
        assert api.http.request(method, path).status_code == 404


def test_a_webhook_goes_with_its_node(api: WebhookApi, receiver: Receiver) -> None:
    api.create("a")
    api.create("a/b")
    ids = [api.register(receiver.url, path) for path in ("a", "a/b")]
    api.ok("DELETE", "/metadata/a?recursive=true&external_only=false")
    api.create("a")  # another node of the same name
    api.create("a/b")
    end = time.monotonic() + 10
    while any(api.http.get(f"/webhooks/history/{id}").status_code != 404 for id in ids):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert receiver.got == []
    assert api.ok("GET", "/webhooks/target/a") == []


def test_history(api: WebhookApi, receiver: Receiver) -> None:
    id = api.register(receiver.url)
    api.create("a")
    api.create("b")
    receiver.wait(2)
    settled(api, id)
    newest, oldest = api.history(id)
    assert newest["payload"] == receiver.got[1].json
    assert oldest["payload"]["path"] == ["a"]
    assert {name: newest[name] for name in ("webhook_id", "event_type", "status_code", "attempts", "error_detail")} == {
        "webhook_id": id,
        "event_type": "container-child-created",
        "status_code": 200,
        "attempts": 1,
        "error_detail": None,
    }
    assert newest["time_created"] <= newest["delivered_at"]
    assert api.ok("GET", f"/webhooks/history/{id}?limit=1") == [newest]
    assert api.http.get(f"/webhooks/history/{id}?limit=0").status_code == 422


def test_a_receiver_that_is_down_gets_everything_in_order_when_it_is_back(api: WebhookApi) -> None:
    with receiving() as receiver:
        port = receiver.port
    id = api.register(f"http://127.0.0.1:{port}/hook")
    for n in range(5):
        api.create(f"n{n}")
    end = time.monotonic() + 15
    while not any(each["attempts"] for each in api.history(id)):
        assert time.monotonic() < end
        time.sleep(0.05)
    waiting = api.history(id)[-1]
    assert (waiting["outcome"], waiting["status_code"], waiting["delivered_at"]) == ("pending", None, None)
    assert "Connect" in waiting["error_detail"]
    with receiving(port) as receiver:
        receiver.wait(5)
        settled(api, id)
    assert receiver.paths() == [f"n{n}" for n in range(5)]
    assert [each["outcome"] for each in api.history(id)] == ["success"] * 5


def test_what_is_refused_is_sent_again_under_the_same_id(api: WebhookApi, receiver: Receiver) -> None:
    receiver.answer = lambda got: 500 if len(receiver.got) < 2 else 204
    id = api.register(receiver.url)
    api.create("a")
    first, second, third = receiver.wait(3)
    assert first.id == second.id == third.id
    assert first.body == second.body == third.body
    settled(api, id)
    (entry,) = api.history(id)
    assert (entry["attempts"], entry["status_code"], entry["error_detail"]) == (3, 204, None)


def test_one_that_hangs_holds_up_nobody_else(api: WebhookApi, receiver: Receiver) -> None:
    with receiving() as slow:
        slow.delay = 3
        api.register(slow.url)
        api.register(receiver.url)
        begin = time.monotonic()
        api.create("a")
        assert time.monotonic() - begin < 1
        receiver.wait(1, seconds=2)
        api.create("b")
        receiver.wait(2, seconds=2)
        slow.wait(1)


def test_redirects_are_not_followed(api: WebhookApi, receiver: Receiver) -> None:
    with receiving() as other:
        receiver.headers = {"Location": other.url}
        receiver.answer = lambda got: 307
        id = api.register(receiver.url)
        api.create("a")
        receiver.wait(1)
        end = time.monotonic() + 5
        while not (history := api.history(id)) or history[0]["attempts"] == 0:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert other.got == []
    assert history[0]["status_code"] == 307
    assert "redirects are not followed" in history[0]["error_detail"]


def test_an_endless_answer_is_not_read(api: WebhookApi, receiver: Receiver) -> None:
    receiver.body = b"x" * (32 << 20)
    id = api.register(receiver.url)
    begin = time.monotonic()
    api.create("a")
    api.create("b")
    receiver.wait(2)
    settled(api, id)
    assert time.monotonic() - begin < 5


def test_a_program_that_ends_has_told_of_its_last_write(receiver: Receiver) -> None:
    with SimpleTiledServer(enable_webhooks=True) as server:
        for api in apis(server):
            api.register(receiver.url)
            for n in range(30):
                api.create(f"n{n}")
    assert receiver.paths() == [f"n{n}" for n in range(30)]


def test_registrations_survive_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    with SimpleTiledServer(tmp_path, enable_webhooks=True) as server:
        key = server.webhook_secret_key
        for api in apis(server):
            id = api.register(receiver.url, secret="s3cret")
    with SimpleTiledServer(tmp_path, enable_webhooks=True) as server:
        assert server.webhook_secret_key == key
        assert (tmp_path / "webhook.key").stat().st_mode & 0o077 == 0
        for api in apis(server):
            assert [webhook["id"] for webhook in api.ok("GET", "/webhooks/target")] == [id]
            api.create("a")
            (got,) = receiver.wait(1)
            assert is_signed(got, "s3cret")


def test_without_webhooks_there_are_no_routes() -> None:
    with SimpleTiledServer() as server:
        assert server.webhook_secret_key is None
        base = f"http://127.0.0.1:{server.port}/api/v1/webhooks"
        for path in ("/target", "/target/a", "/history/1"):
            assert httpx.get(base + path, headers={"Authorization": f"Apikey {server.api_key}"}).status_code == 404


def test_figures(api: WebhookApi, receiver: Receiver) -> None:
    id = api.register(receiver.url)
    api.create("a")
    receiver.wait(1)
    settled(api, id)
    lines = api.http.get("/metrics").text.splitlines()
    assert "tiled_stream_webhook_deliveries_total 1.0" in lines
    assert "tiled_stream_webhook_pending 0.0" in lines
