"""Real processes: killed while they deliver, and two that share one database. What was acknowledged is told, by one of them."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.scenarios.replicas import KEY as REPLICA_KEY
from tests.scenarios.replicas import Replica
from tests.scenarios.server_process import KEY, ServerProcess
from tests.servers.postgres import new_database
from tests.servers.processes import free_port
from tests.servers.redis import redis_server
from tests.webhooks.receiver import Receiver, WebhookApi, is_signed, receiving

ENVIRON = {
    "TILED_STREAM_WEBHOOK_SECRET_KEYS": "key of the tests",
    "TILED_STREAM_WEBHOOK_ALLOW_HTTP": "yes",
    "TILED_STREAM_WEBHOOK_ALLOW_PRIVATE_ADDRESSES": "yes",
}
KILLS = 5


def server_in(directory: Path) -> ServerProcess:
    arguments = [str(directory / "catalog.db"), "--init", "-w", str(directory / "data")]
    return ServerProcess(*arguments, directory=directory, environ=ENVIRON)


def create_until_it_dies(api: WebhookApi, done: list[str], doubtful: set[str]) -> None:
    with contextlib.suppress(httpx.HTTPError):
        while True:
            key = f"n{len(done) + len(doubtful)}"
            doubtful.add(key)
            api.create(key)
            doubtful.discard(key)
            done.append(key)
            time.sleep(0.002)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    doubtful: set[str] = set()
    with receiving() as receiver:
        receiver.delay = 0.005
        for n in range(KILLS):
            server = server_in(tmp_path)
            api = WebhookApi(server.base, KEY)
            if n == 0:
                api.register(receiver.url, secret="s3cret", events=["container-child-created"])
            writer = threading.Thread(target=create_until_it_dies, args=(api, acknowledged, doubtful))
            writer.start()
            time.sleep(random.uniform(0.3, 1.0))
            server.stop(signal.SIGKILL)
            writer.join()
            api.http.close()
        server = server_in(tmp_path)
        end = time.monotonic() + 60
        while not set(acknowledged) <= set(receiver.paths()):
            assert time.monotonic() < end, set(acknowledged) - set(receiver.paths())
            time.sleep(0.1)
        assert server.stop() == 0, server.log()
    assert len(acknowledged) > 20
    assert all(is_signed(got, "s3cret") for got in receiver.got)
    ids = {got.id: got.json["key"] for got in receiver.got}
    assert len(ids) == len(set(ids.values()))  # one id a node, however often it came
    first = list(dict.fromkeys(receiver.paths()))
    assert [key for key in first if key in set(acknowledged)] == acknowledged
    assert set(first) <= {*acknowledged, *doubtful}
    # Only what was under way when the process died comes twice.
    assert len(receiver.got) - len(first) <= KILLS


def test_a_receiver_that_is_down_over_a_restart(tmp_path: Path) -> None:
    port = free_port()
    server = server_in(tmp_path)
    api = WebhookApi(server.base, KEY)
    id = api.register(f"http://127.0.0.1:{port}/hook")
    api.create("a")
    api.ok("PUT", "/metadata/a", json={"metadata": {"x": 1}})
    server.stop(signal.SIGKILL)  # perhaps before anything was persisted
    api.http.close()
    server = server_in(tmp_path)
    api = WebhookApi(server.base, KEY)
    end = time.monotonic() + 20
    while len(history := api.history(id)) < 2 or not history[-1]["attempts"]:
        assert time.monotonic() < end, history
        time.sleep(0.1)
    with receiving(port) as receiver:
        receiver.wait(2, seconds=70)
    assert [got.json["type"] for got in receiver.got] == ["container-child-created", "container-child-metadata-updated"]
    api.http.close()
    assert server.stop() == 0


def test_it_stops_soon_and_cleanly_while_a_receiver_hangs(tmp_path: Path) -> None:
    with receiving() as receiver:
        receiver.delay = 8
        server = server_in(tmp_path)
        api = WebhookApi(server.base, KEY)
        api.register(receiver.url)
        api.create("a")
        time.sleep(1)
        api.http.close()
        begin = time.monotonic()
        assert server.stop() == 0, server.log()
        assert time.monotonic() - begin < 7
        receiver.delay = 0
        server = server_in(tmp_path)
        receiver.wait(1)
        assert server.stop() == 0


def expect_each_once(receiver: Receiver, count: int) -> None:
    receiver.wait(count, seconds=60)
    time.sleep(2)
    assert sorted(receiver.paths()) == sorted(f"n{n}" for n in range(count))


def test_two_processes_deliver_each_event_once(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    with (
        new_database(postgres_url) as catalog,
        new_database(postgres_url) as storage,
        redis_server() as redis,
        receiving() as receiver,
    ):
        arguments = [
            *("serve", "catalog", catalog, "--init", "--scalable", "--api-key", REPLICA_KEY),
            *("-w", str(tmp_path / "arrays"), "-w", storage, "--cache", redis.url, "--host", "127.0.0.1"),
        ]
        replicas = [Replica(free_port(), arguments, tmp_path / f"server{n}.log") for n in range(2)]
        try:
            for replica in replicas:
                replica.wait()
            apis = [WebhookApi(f"http://127.0.0.1:{replica.port}/api/v1", REPLICA_KEY) for replica in replicas]
            id = apis[0].register(receiver.url)
            for n in range(40):
                apis[n % 2].create(f"n{n}")
            expect_each_once(receiver, 40)
            assert {got.json["key"]: got.id for got in receiver.got} == {
                got["payload"]["key"]: by_path.id
                for got in apis[1].history(id)
                for by_path in receiver.got
                if by_path.json["path"] == got["payload"]["path"]
            }
            # One of them dies; the other goes on, with what the dead one had in hand after its claim has run out.
            replicas[0].process.kill()
            for n in range(40, 50):
                apis[1].create(f"n{n}")
            expect_each_once(receiver, 50)
            for api in apis:
                api.http.close()
            assert replicas[1].process.stop(signal.SIGTERM, seconds=30) == 0, replicas[1].process.words()
        finally:
            for replica in replicas:
                replica.process.kill()
