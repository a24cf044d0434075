"""Frames that are too large for Redis, with real servers: acknowledged, seen live, survive `kill -9`, leave no file behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy

from tests.scenarios.server_process import OCTETS, ServerProcess, array_source, create, serving
from tests.servers.processes import until
from tests.servers.redis import redis_server

SHAPE = (1, 300, 500)  # 1.2 MB
FRAMES = 12
ENVIRON = {"TILED_STREAM_CACHE_CLAIM_BYTES": "1000000", "TILED_STREAM_CACHE_DATA_TTL": "3600"}


def frame(n: int) -> numpy.ndarray[Any, Any]:
    return numpy.random.default_rng(n).random(SHAPE)


def claims(directory: Path) -> list[Path]:
    return [path for path in (directory / "data" / ".claims").rglob("*") if path.is_file()]


@contextlib.contextmanager
def server(directory: Path, redis: str, *more: str) -> Iterator[ServerProcess]:
    words = ("catalog.db", "--init", "-w", "data", "-w", "duckdb:///./tables.duckdb", "--cache", redis, *more)
    with serving(*words, directory=directory, environ=ENVIRON) as process:
        yield process


def extend(client: httpx.Client, n: int) -> None:
    shape = ",".join(map(str, SHAPE))
    url = f"/array/full/camera?offset={n},0,0&shape={shape}&extend=true"
    client.patch(url, content=frame(n).tobytes(), headers=OCTETS).raise_for_status()


def test_frames_survive_kill_9_and_are_seen_by_everybody(tmp_path: Path) -> None:
    with redis_server() as redis:
        with server(tmp_path, redis.url, "--no-persist") as first, first.client() as client:
            source = array_source([1, *SHAPE[1:]], [[1], [300], [500]])
            create(client, "", "camera", "array", source)
            client.put("/array/full/camera", content=frame(0).tobytes(), headers=OCTETS).raise_for_status()
            with first.subscribe("camera", start=1) as socket:
                for n in range(1, FRAMES):
                    extend(client, n)
                for n in range(FRAMES):
                    message = msgspec.msgpack.decode(socket.recv(timeout=20))
                    assert message["sequence"] == n + 1
                    assert numpy.array_equal(numpy.frombuffer(message["payload"]).reshape(SHAPE), frame(n))
            assert len(claims(tmp_path)) == FRAMES
            with redis.client() as asked:
                assert asked.info("memory")["used_memory"] < FRAMES * frame(0).nbytes / 2
            first.stop(signal.SIGKILL)
        with server(tmp_path, redis.url) as second, second.client() as client:
            answer = client.get(
                "/array/full/camera", headers={"Accept": "application/octet-stream", "Accept-Encoding": "identity"}
            )
            assert answer.status_code == 200, answer.text
            cells = numpy.frombuffer(answer.content).reshape(FRAMES, *SHAPE[1:])
            assert numpy.array_equal(cells, numpy.concatenate([frame(n) for n in range(FRAMES)]))
            assert len(claims(tmp_path)) == FRAMES  # persisted, and kept for late subscribers
            client.delete("/metadata/camera?recursive=true&external_only=false").raise_for_status()
            until(lambda: not claims(tmp_path), "the files go with the node")


def test_a_body_that_is_away_costs_time_and_no_data(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with redis_server() as redis:
        with server(tmp_path, redis.url, "--no-persist") as first, first.client() as client:
            create(client, "", "camera", "array", array_source([1, *SHAPE[1:]], [[1], [300], [500]]))
            client.put("/array/full/camera", content=frame(0).tobytes(), headers=OCTETS).raise_for_status()
            assert first.stop() == 0
        (away,) = claims(tmp_path)
        away.rename(kept)
        with server(tmp_path, redis.url) as second, second.client() as client:
            until(lambda: "is not where the log has put it" in second.log(), "the server says what is missing")
            # Everything else goes on, what comes after it in its own log excepted.
            create(client, "", "other", "array", array_source([1, *SHAPE[1:]], [[1], [300], [500]]))
            other = client.put("/array/full/other", content=frame(1).tobytes(), headers=OCTETS | {"X-Tiled-Ack": "persisted"})
            assert other.status_code == 200, other.text
            kept.rename(away)
            headers = {"Accept": "application/octet-stream", "Accept-Encoding": "identity"}

            def is_there() -> bool:
                answer = client.get("/array/full/camera", headers=headers)
                return answer.status_code == 200 and answer.content == frame(0).tobytes()

            until(is_there, "the frame is persisted")
