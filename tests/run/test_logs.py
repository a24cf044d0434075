"""What is logged, in which form, and that no secret is ever among it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run import running
from tiled_stream.run.logs import REQUEST_FIELDS, Repetitions, configure


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    kept = (root.handlers, root.level, logging.getLogger("tiled_stream.access").level, logging.getLogger("aiosqlite").level)
    yield
    root.handlers, level, access, sqlite = kept
    root.setLevel(level)
    logging.getLogger("tiled_stream.access").setLevel(access)
    logging.getLogger("aiosqlite").setLevel(sqlite)


def test_a_line_of_json_each(capsys: pytest.CaptureFixture[str]) -> None:
    configure(level="info", log_format="json", access_log=True)
    logging.getLogger("a.b").info("one %d", 1)
    logging.getLogger("a.b").debug("not this")
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("a.b").exception("two")
    one, two = map(json.loads, capsys.readouterr().err.splitlines())
    assert (one["event"], one["level"], one["logger"]) == ("one 1", "info", "a.b")
    assert one["timestamp"].endswith("Z")
    assert "ValueError: bad" in two["exception"]


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure(level="warning", log_format="console", access_log=True, timestamps=False)
    logging.getLogger("a").warning("careful")
    assert capsys.readouterr().err.split() == ["[warning", "]", "careful", "[a]"]


class Lines:
    """A logger whose repetitions are left out, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self._filter = Repetitions(seconds=10.0, clock=lambda: self.now)

    def log(self, level: int, message: str, *args: object, name: str = "a", error: Exception | None = None) -> None:
        info = None if error is None else (type(error), error, None)
        record = logging.LogRecord(name, level, __file__, 1, message, args, info)
        if self._filter.filter(record):
            self.lines.append(record.getMessage())


def test_same_fault_is_logged_once_in_ten_seconds() -> None:
    lines = Lines()
    for _ in range(100):
        lines.log(logging.WARNING, "Redis cannot be reached: %s", "refused")
        lines.log(logging.WARNING, "Redis cannot be reached: %s", "timeout")
        lines.now += 0.05
    assert lines.lines == ["Redis cannot be reached: refused", "Redis cannot be reached: timeout"]
    lines.now = 20.0
    lines.log(logging.WARNING, "Redis cannot be reached: %s", "refused")
    assert lines.lines[2:] == ["Redis cannot be reached: refused (99 more of these in the last 20 s)"]
    lines.now = 40.0
    lines.log(logging.WARNING, "Redis cannot be reached: %s", "refused")
    assert lines.lines[3:] == ["Redis cannot be reached: refused"]


def test_same_exception_at_one_place_is_one_fault_whatever_the_request() -> None:
    lines = Lines()
    for number in range(5):
        lines.log(logging.ERROR, "Request %d failed", number, error=OSError(28, "No space left"))
    lines.log(logging.ERROR, "Request %d failed", 5, error=ValueError("another"))
    assert lines.lines == ["Request 0 failed", "Request 5 failed"]


def test_lines_of_requests_and_of_information_are_all_logged() -> None:
    lines = Lines()
    for _ in range(3):
        lines.log(logging.INFO, "begins")
        lines.log(logging.WARNING, "PUT /a 503", name="tiled_stream.access")
    assert len(lines.lines) == 6


def test_remembered_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiled_stream.run.logs._REMEMBERED", 3)
    lines = Lines()
    for number in (0, 1, 2, 3, 0):
        lines.log(logging.WARNING, "fault %d", number)
    assert lines.lines[-1] == "fault 0"
    assert len(lines._filter._said) == 3


def test_configured_log_leaves_repetitions_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure(level="info", log_format="json", access_log=True)
    for _ in range(3):
        logging.getLogger("a").error("full")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_tracebacks_show_no_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure(level="info", log_format="console", access_log=True)
    key = "".join(["top", "secret"])  # not in this line as such
    try:
        raise ValueError(len(key))
    except ValueError:
        logging.getLogger("a").exception("it failed")
    said = capsys.readouterr().err
    assert "ValueError: 9" in said
    assert key not in said


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_key_is_nowhere_in_the_log_of_requests(tmp_path: Path, log_format: str) -> None:
    """Given in every way a client can give it, right and wrong, with everything logged."""
    with running.serving("--temp", "-v", "--log-format", log_format, errors=tmp_path / "errors") as server:
        server.ok("GET", "/metadata/")
        server.ok("GET", f"/metadata/?api_key={running.KEY}")
        server.client.get("/metadata/?api_key=wrongkey1")
        server.client.get("/metadata/", headers={"Authorization": "Apikey wrongkey2"})
        server.client.cookies.set("tiled_api_key", "wrongkey3")
        server.client.get("/metadata/", headers={"Authorization": ""})
        with server.subscribe("", 0) as stream:
            stream.recv(20)
        assert server.stop() == 0
        _, _, said = server.errors.read_text().partition("  log  ")  # what was announced holds the key, for its owner
    assert said.count('"GET /api/v1/metadata') + said.count('\\"GET /api/v1/metadata') >= 5
    for secret in (running.KEY, "wrongkey1", "wrongkey2", "wrongkey3"):
        assert secret not in said


def test_requests_have_fields(tmp_path: Path) -> None:
    """Of a real server: what is in the sentence can be asked for by name; the id is the one that the client was told."""
    with running.serving("--temp", "-v", "--log-format", "json", errors=tmp_path / "errors") as server:
        answer = server.client.get(f"/metadata/no/such?api_key={running.KEY}")
        refused = server.client.get("/metadata/", headers={"Authorization": "Apikey wrongkey1"})
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.errors.read_text().splitlines() if line.startswith("{")]
    by_id = {line["request_id"]: line for line in lines if "request_id" in line}
    line = by_id[answer.headers["x-tiled-request-id"]]
    assert set(line) == {"event", "level", "logger", "timestamp", *REQUEST_FIELDS}
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/metadata/no/such", 404)
    assert line["client"] == "127.0.0.1"
    assert line["principal"] not in ("", "unset")
    assert isinstance(line["milliseconds"], float)
    assert by_id[refused.headers["x-tiled-request-id"]]["status"] == 401
    others = [line for line in lines if line["logger"] != "tiled_stream.access"]
    assert others
    assert all(set(line) <= {"event", "level", "logger", "timestamp", "exception"} for line in others)
