"""The command line: what it says and with which status it ends. Faults are sentences, never tracebacks."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

import tiled_stream
from tests.run import running
from tiled_stream.catalog.migrate import migrations
from tiled_stream.run import cli
from tiled_stream.run.settings import Settings

#: Version of a catalog that is made now.
LATEST = len(migrations("sqlite"))


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TILED_SINGLE_USER_API_KEY", "TILED_CATALOG_URI", "TILED_STREAM_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings of servers that would have been started."""
    seen: list[Settings] = []
    monkeypatch.setattr(cli, "_serve", lambda settings, **_: seen.append(settings))
    return seen


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli.app, words)


def fails(status: int, said: str, *words: str) -> None:
    result = invoke(*words)
    assert result.exit_code == status, result.output
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_version() -> None:
    assert invoke("--version").output.strip() == tiled_stream.__version__


def test_flags_become_settings(started: list[Settings]) -> None:
    words = "--init -r /r1 -r /r2 -w d -w duckdb:///t --public --api-key k --cache memory --cache-data-ttl 5 --cache-seq-ttl 9"
    result = invoke(
        "serve", "catalog", "c.db", *words.split(), *["--host", "::1", "--port", "7", "--root-path", "/x", "--log-format", "json"]
    )
    assert result.exit_code == 0, result.output
    assert started == [
        Settings(
            catalog="c.db",
            init=True,
            read=("/r1", "/r2"),
            write=("d", "duckdb:///t"),
            public=True,
            api_key="k",
            cache="memory",
            cache_data_ttl=5.0,
            host="::1",
            port=7,
            root_path="/x",
            log_format="json",
            access_log=False,
        )
    ]


def test_what_is_not_given_comes_from_the_environment(started: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"CATALOG": "there.db", "HOST": "0.0.0.0", "PORT": "9", "WRITE": "w", "INIT": "true", "ACCESS_LOG": "true"}
    for name, value in environ.items():
        monkeypatch.setenv(f"TILED_STREAM_{name}", value)
    assert invoke("serve", "catalog").exit_code == 0
    assert started[0] == Settings(catalog="there.db", host="0.0.0.0", port=9, write=("w",), init=True, access_log=True)
    assert invoke("serve", "catalog", "--temp", "--port", "10").exit_code == 0
    assert (started[1].temp, started[1].catalog, started[1].port) == (True, None, 10)
    assert invoke("serve", "catalog", "here.db", "-w", "x").exit_code == 0
    assert (started[2].catalog, started[2].write) == ("here.db", ("x",))


def test_requests_are_logged_when_asked_for(started: list[Settings]) -> None:
    assert invoke("serve", "catalog", "--temp").exit_code == 0
    assert invoke("serve", "catalog", "--temp", "-v").exit_code == 0
    assert [settings.access_log for settings in started] == [False, True]


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (1, "--temp", ""),
        (1, "not both", "c.db --temp"),
        (3, "letters and digits", "--temp --api-key a-b"),
        (1, "--api-key", "--temp --scalable"),
        (1, "postgresql://USER@HOST", "--temp --scalable --api-key k"),
        (1, "belong to one process", "postgresql://localhost/db --scalable --api-key k -w duckdb:///t --cache redis://localhost"),
        (1, "--cache redis://HOST", "postgresql://localhost/db --scalable --api-key k --cache memory"),
        (3, "Redis, which holds the log, cannot be reached", "--temp --cache redis://127.0.0.1:1"),
        (1, "--cache redis://HOST", "postgresql://localhost/db"),
        (3, "cannot be reached", "postgresql://127.0.0.1:1/db --cache memory"),
        (1, "'port'", "--temp --port 70000"),
        (1, "Cannot listen on 256.1.1.1", "--temp --host 256.1.1.1"),
        (1, "--log-format", "--temp --log-format xml"),
        (2, "--nonsense", "--temp --nonsense"),
        (2, "--port", "--temp --port many"),
    ],
)
def test_what_cannot_be(status: int, said: str, words: str) -> None:
    fails(status, said, "serve", "catalog", *words.split())


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        fails(1, "choose another --port", "serve", "catalog", "--temp", "--port", port)


def test_making_a_catalog(tmp_path: Path) -> None:
    assert invoke("catalog", "init").exit_code == 0
    assert (tmp_path / "catalog.db").exists()
    fails(1, "already", "catalog", "init", "./catalog.db")
    assert invoke("catalog", "init", "--if-not-exists").exit_code == 0
    fails(1, "cannot be reached", "catalog", "init", "postgresql://127.0.0.1:1/db")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:7/x"),
        ("0.0.0.0", "http://127.0.0.1:7/x"),
        ("::", "http://[::1]:7/x"),
        ("here.org", "http://here.org:7/x"),
    ],
)
def test_an_address_that_can_be_clicked(host: str, url: str) -> None:
    assert cli._url(Settings(temp=True, host=host, root_path="/x"), 7) == url


def test_a_life(tmp_path: Path) -> None:
    """Refused without `--init`, made with it, and found again by the next start; refused while another has it."""
    command = [sys.executable, "-m", "tiled_stream", "serve", "catalog", "c.db", "--port", "0"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 3
    assert "--init" in refused.stderr
    assert "Traceback" not in refused.stderr
    places = [str(tmp_path / "c.db"), "-w", str(tmp_path / "data")]
    with running.serving(*places, "--init", errors=tmp_path / "1") as server:
        server.ok("POST", "/metadata/", json=running.table("t"))
        server.ok("PATCH", "/table/partition/t?partition=0", content=running.rows(1, 2))
        second = subprocess.run([*command, "--init"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (second.returncode, "Traceback" in second.stderr) == (3, False), second.stderr
        assert "c.db" in second.stderr
        assert server.stop(signal.SIGINT) == 0
        said = server.errors.read_text()
    for place in ("c.db", "c.db.log", "data", "data.duckdb"):
        assert str(tmp_path / place) in said
    with running.serving(*places, errors=tmp_path / "2") as server:
        body = server.client.get("/table/full/t", headers=running.ARROW).content
        assert running.numbers_of(body) == [1, 2]
        assert server.stop() == 0


def test_a_generated_key_is_printed_and_works(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tiled_stream", "serve", "catalog", "--temp", "--port", "0"]
    with running.Running(command, tmp_path / "errors") as server:
        said = server.errors.read_text()
        url, _, key = next(word for word in said.split() if "api_key=" in word).partition("?api_key=")
        assert "The key is new with each start" in said
        with httpx.Client(headers={"Authorization": f"Apikey {key}"}) as client:
            assert client.get(f"{url}/api/v1/metadata/").status_code == 200
        assert server.client.get("/metadata/").status_code == 401
        assert server.stop() == 0


def test_catalogs_in_postgresql(new_postgres: str) -> None:
    fails(1, "not initialised", "catalog", "check", new_postgres)
    fails(1, "catalog init", "catalog", "upgrade-database", new_postgres)
    assert invoke("catalog", "init", new_postgres).exit_code == 0
    fails(1, "already", "catalog", "init", new_postgres)
    assert invoke("catalog", "init", new_postgres, "--if-not-exists").exit_code == 0
    assert f"version {LATEST}, can be used, 0 nodes" in invoke("catalog", "check", new_postgres).output
    assert f"version {LATEST}, as before" in invoke("catalog", "upgrade-database", new_postgres).output


def test_checking_a_file(tmp_path: Path) -> None:
    fails(1, "not initialised", "catalog", "check", str(tmp_path / "c.db"))
    assert invoke("catalog", "init", str(tmp_path / "c.db")).exit_code == 0
    assert f"version {LATEST}, can be used, 0 nodes" in invoke("catalog", "check", str(tmp_path / "c.db")).output
    assert f"version {LATEST}, as before" in invoke("catalog", "upgrade-database", str(tmp_path / "c.db")).output


def test_a_configuration_file_is_checked(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("catalog: {uri: ./c.db, init_if_not_exists: true}\n")
    assert "No errors" in invoke("admin", "check-config", str(tmp_path / "config.yml")).output
    (tmp_path / "config.yml").write_text("catalog: {url: ./c.db}\n")
    fails(1, "catalog.url", "admin", "check-config", str(tmp_path / "config.yml"))


def test_a_process_that_only_persists_needs_a_shared_log(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("catalog: {uri: ./c.db, init_if_not_exists: true}\n")
    fails(1, "redis://HOST:6379", "persist", str(tmp_path / "config.yml"))
