"""Pages and examples about configuration files are true: they name the keys that there are, and what they show is loaded."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from tests.house.fences import ROOT, blocks, cells
from tiled_stream.run.config import settings_from_config
from tiled_stream.run.config_keys import KEYS, OWN, Key
from tiled_stream.run.settings import Settings, SettingsError

PAGE = ROOT / "docs" / "reference" / "config.md"
HOW_TO = ROOT / "docs" / "how-to" / "config-file.md"
EXAMPLES = ROOT / "examples" / "config"
ENVIRON = {"TILED_KEY": "akey", "PGPASSWORD": "postgrespassword", "REDIS_PASSWORD": "redispassword"}
#: All but our own section, whose keys are the settings and stand on their page.
NAMED = {path: key for path, key in KEYS.items() if not path.startswith(f"{OWN}.")}
ROWS = {name: row for row in cells(PAGE) for name in re.findall(r"`([^`]+)`", row[0])}


def words(kind: Any) -> str:
    """A type as the page says it."""
    if typing.get_origin(kind) is typing.Literal:
        *most, last = typing.get_args(kind)
        return f"{', '.join(most)} or {last}"
    if isinstance(kind, types.UnionType):
        return " or ".join(words(arm).partition(" of ")[0] for arm in typing.get_args(kind) if arm is not type(None))
    if kind == tuple[str, ...]:
        return "list of texts"
    plain = {bool: "true or false", int: "whole number", float: "number", str: "text", tuple: "list", dict: "mapping"}
    return plain.get(typing.get_origin(kind) or kind, "any")


def test_the_page_and_the_code_name_the_same_keys() -> None:
    assert ROWS.keys() == NAMED.keys() | {f"{OWN}.NAME"}


@pytest.mark.parametrize("key", NAMED.values(), ids=lambda key: key.path)
def test_type_and_class_are_those_of_the_code(key: Key) -> None:
    _, kind, _, use, _ = ROWS[key.path]
    assert kind == words(key.kind)
    assert use == (f"used ({key.setting})" if key.setting else key.use)


@pytest.mark.parametrize("key", [key for key in NAMED.values() if key.setting], ids=lambda key: key.path)
def test_defaults_are_those_of_the_settings(key: Key) -> None:
    value, text = getattr(Settings(catalog="c.db"), key.setting), ROWS[key.path][2]
    if key.setting == "catalog":
        assert text == "none"
    elif isinstance(value, bool) or not value:
        assert text in (str(value).lower(), "empty", "none", "random")
    else:
        assert text.replace(" 000", "000") == (f"{value:.0f}" if isinstance(value, float) else str(value))


def test_the_worked_example_is_loaded(tmp_path: Path) -> None:
    shown = [block.text for block in blocks(HOW_TO) if block.language == "yaml"]
    assert len(shown) == 2
    (tmp_path / "config.yml").write_text(shown[0])
    assert settings_from_config(tmp_path / "config.yml", ENVIRON) == Settings(
        catalog="/srv/tiled/catalog.db",
        init=True,
        root_specs=({"name": "CatalogOfBlueskyRuns", "version": "3.0"},),
        write=("/srv/tiled/arrays", "duckdb:////srv/tiled/tables.duckdb"),
        api_key="akey",
        public=True,
        host="0.0.0.0",
        log_sync="full",
        drain_timeout_seconds=30,
    )
    (tmp_path / "config.yml").write_text(shown[1])
    assert settings_from_config(tmp_path / "config.yml", ENVIRON) == Settings(
        catalog="./catalog.db",
        init=True,
        mounts=(
            {"path": "/public", "node": "/released"},
            {"path": "/beamlines/seven", "node": "/staff/b7", "specs": [{"name": "Beamline", "version": None}]},
        ),
        create_mount_nodes_if_not_exist=True,
    )


def test_the_errors_that_are_shown_are_the_errors(tmp_path: Path) -> None:
    lines = next(block.text for block in blocks(HOW_TO) if block.language == "text").splitlines()
    mistakes = ["uvicorn: {prot: 1}", "catalog: {writable_storage: here}"]
    for line, mistake in zip(lines, mistakes, strict=True):
        (tmp_path / "config.yml").write_text(mistake)
        with pytest.raises(SettingsError) as caught:
            settings_from_config(tmp_path / "config.yml", {})
        assert str(caught.value) == line.replace("/etc/tiled-stream", str(tmp_path))


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_examples_are_loaded(path: Path) -> None:
    """With `--scalable` where several processes are meant; with every variable that they name, and no other."""
    is_single = path.name == "single-process.yml"
    settings = settings_from_config(path, ENVIRON, scalable=not is_single)
    assert settings.api_key == "akey"
    assert settings.is_shared_log is not is_single
    named = set(re.findall(r"\$\{(\w+)\}", path.read_text()))
    assert named <= ENVIRON.keys()
    for name in named:
        with pytest.raises(SettingsError, match=rf"the environment variable {name} is not set"):
            settings_from_config(path, {k: v for k, v in ENVIRON.items() if k != name})


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {"single-process.yml", "scalable.yml", "sentinel.yml"}
