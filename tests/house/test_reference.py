"""The reference pages name all that exists and nothing that does not: settings, flags, metrics, codes, events, routes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import httpx
import pytest
import typer.main
from hypercorn.config import Config

import tiled_stream
from tiled_stream.domain import errors
from tiled_stream.domain.events import DELIVERED, Event
from tiled_stream.http.faults import FAULTS
from tiled_stream.http.metrics import FIGURES, Metrics
from tiled_stream.http.stream import CLOSE_CODES
from tiled_stream.run import settings
from tiled_stream.run.cli import app
from tiled_stream.run.serving import hypercorn_config

from .fences import ROOT, cells, prose

REFERENCE = ROOT / "docs" / "reference"


def firsts(page: Path, pattern: str = r"[\w]+") -> set[str]:
    """What stands alone, as code, in the first cells of the tables of a page."""
    return {row[0].strip("`") for row in cells(page) if re.fullmatch(f"`{pattern}`", row[0])}


def row_of(page: Path, name: str) -> list[str]:
    """The first row of a page whose first cell is `name`, as code."""
    return next(row for row in cells(page) if row[0] == f"`{name}`")


def test_settings() -> None:
    page = REFERENCE / "settings.md"
    documented = {name for name in firsts(page) if name.islower()}
    assert documented == set(settings.Settings.__struct_fields__)


def test_aliases_of_settings() -> None:
    page = REFERENCE / "settings.md"
    for name in {name for name in firsts(page) if name.isupper()}:
        field = row_of(page, name)[1].removeprefix("the setting ")
        kind = get_type_hints(settings.Settings)[field]
        value = {bool: not getattr(settings.Settings(temp=True), field), int: 7, float: 7.5, tuple[str, ...]: ("one", "two")}.get(
            kind, "key1"
        )
        value = ("10.0.0.0/8",) if field == "webhook_blocked_networks" else value
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        given = settings.from_env({name: text}, **({} if field == "catalog" else {"temp": True}))
        assert getattr(given, field) == value


def test_all_names_of_the_reference_server_are_told() -> None:
    assert {name for name in firsts(REFERENCE / "settings.md") if name.isupper()} == settings.ALIASES.keys()


def test_defaults_of_settings() -> None:
    """Where the page gives a plain value, it is the one in the code."""
    plain = settings.Settings(temp=True)
    units = {"MiB": 1 << 20, "GiB": 1 << 30}
    for name in set(settings.Settings.__struct_fields__) - {"temp"}:
        text, value = row_of(REFERENCE / "settings.md", name)[1], getattr(plain, name)
        if isinstance(value, bool):
            assert text == str(value).lower(), name
        elif isinstance(value, int | float):
            number, _, unit = text.replace(" 000", "000").partition(" ")
            assert float(number) * units.get(unit, 1) == value, name
        elif value:
            assert text == str(value) or isinstance(value, tuple), name
        else:
            assert text in ("empty", "none", "random"), name


def leaves(command: Any, path: str = "tiled-stream") -> Iterator[tuple[str, Any]]:
    """All commands that have no subcommands, with their names in full; and the root."""
    children = getattr(command, "commands", None)
    if children is None or path == "tiled-stream":
        yield path, command
    for name, child in (children or {}).items():
        yield from leaves(child, f"{path} {name}")


def test_command_line() -> None:
    parts = re.split(r"^## (tiled-stream .+)$", prose(REFERENCE / "cli.md"), flags=re.MULTILINE)
    documented = dict(zip(["tiled-stream", *parts[1::2]], parts[::2], strict=True))
    commands = dict(leaves(typer.main.get_command(app)))
    assert documented.keys() == commands.keys()
    for name, command in commands.items():
        real = {
            option
            for parameter in command.params
            if parameter.param_type_name == "option"
            for option in [*parameter.opts, *parameter.secondary_opts]
        } - {"--help"}
        rows = [line.split("|")[1] for line in documented[name].splitlines() if line.startswith("| `-")]
        assert {option for row in rows for option in re.findall(r"`(--?[\w-]+)`", row)} - {"--help"} == real, name


def test_metrics() -> None:
    observed = SimpleNamespace(observe=lambda callback: None)
    edge: Any = SimpleNamespace(hub=observed, writer=observed)
    histograms = {metric.name: metric.type for metric in Metrics(edge).registry.collect()}
    real = histograms | {name: kind for name, (kind, _) in FIGURES.items()}
    page = REFERENCE / "metrics.md"
    assert firsts(page, r"tiled_\w+") == set(real)
    assert {name: row_of(page, name)[1] for name in real} == real


def test_every_error_has_its_status_and_close_code() -> None:
    page = REFERENCE / "close-codes.md"
    real = {kind.__name__: [str(status), str(code)] for kind, (status, code) in FAULTS.items()}
    assert set(real) == set(errors.__all__)
    assert {name: row_of(page, name)[1:3] for name in firsts(page)} == real


def test_close_codes_of_streams() -> None:
    documented = {row[0] for row in cells(REFERENCE / "close-codes.md") if row[0].isdigit()}
    assert documented == set(map(str, CLOSE_CODES))


def test_events() -> None:
    page = REFERENCE / "events.md"
    real = {kind.__name__: kind for kind in get_args(Event)}
    assert firsts(page) == set(real)
    rows = cells(page)
    for name, kind in real.items():
        fields, wire = (row for row in rows if row[0] == f"`{name}`")
        assert re.findall(r"`(\w+)`", fields[3]) == list(kind.__struct_fields__), name
        assert (not wire[1].startswith("none")) == (kind in DELIVERED), name


def test_routes() -> None:
    with tiled_stream.SimpleTiledServer(api_key="secret") as server:
        paths = httpx.get(f"http://127.0.0.1:{server.port}/docs/openapi.json").raise_for_status().json()["paths"]
    real = {path: set(methods) for path, methods in paths.items()}
    page = REFERENCE / "compatibility.md"
    documented = {row[0].strip("`"): set(row[1].split(", ")) for row in cells(page) if row[0].startswith("`/")}
    assert documented == real


def test_plain_hypercorn_gets_the_same_settings() -> None:
    ours, shipped, plain = hypercorn_config(), Config.from_toml(ROOT / "deploy" / "hypercorn.toml"), Config()
    named = set(tomllib.loads((ROOT / "deploy" / "hypercorn.toml").read_text()))
    attributes = [name for name, value in vars(Config).items() if isinstance(value, str | int | float | None)]
    changed = {name for name in attributes if getattr(ours, name) != getattr(plain, name)}
    # Logs are the program's own; hypercorn started by itself may keep its.
    assert {name for name in changed if not name.startswith("_")} - {"errorlog", "accesslog", "logger_class"} <= named
    # How many processes is asked of hypercorn's own command only.
    assert shipped.workers == 0
    assert {name: getattr(shipped, name) for name in named - {"workers"}} == {
        name: getattr(ours, name) for name in named - {"workers"}
    }


def test_public_surface() -> None:
    """What a user may import from the top. Adding is a decision; taking away breaks somebody."""
    assert sorted(tiled_stream.__all__) == ["Settings", "SimpleTiledServer", "__version__", "create_app"]
    for name in tiled_stream.__all__:
        assert getattr(tiled_stream, name) is not None
    with pytest.raises(AttributeError):
        tiled_stream.__getattr__("nothing")
