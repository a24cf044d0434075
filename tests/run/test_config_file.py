"""Files are found, read and merged, and variables filled in; what is wrong is named with its place, and no secret is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.run.config_file import ConfigFile, read_config
from tiled_stream.run.settings import SettingsError

#: Anything but the dollar sign, which means something.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="$"))


def written(tmp_path: Path, text: str, name: str = "config.yml") -> Path:
    """A file with this text."""
    path = tmp_path / name
    path.write_text(text)
    return path


def read(tmp_path: Path, text: str, **environ: str) -> dict[str, Any]:
    """What a file with this text says."""
    return read_config(written(tmp_path, text), environ).values


def refused(tmp_path: Path, text: str, **environ: str) -> str:
    """The error about a file with this text."""
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, **environ)
    assert str(tmp_path / "config.yml") in str(caught.value)
    return str(caught.value)


class TestFinding:
    def test_the_path_before_the_variable_before_the_usual_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        named, meant = written(tmp_path, "a: 1", "named.yml"), written(tmp_path, "a: 2", "meant.yml")
        written(tmp_path, "a: 3")
        environ = {"TILED_CONFIG": str(meant)}
        assert read_config(named, environ).values == {"a": 1}
        assert read_config(None, environ).values == {"a": 2}
        assert read_config(None, {}).values == {"a": 3}
        assert read_config(None, {"TILED_CONFIG": ""}).values == {"a": 3}

    def test_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SettingsError, match=r"^config.yml: there is no such file; name one, set TILED_CONFIG"):
            read_config(None, {})

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yml"
        path.write_bytes(b"a: \xff")
        with pytest.raises(SettingsError, match="not written in UTF-8"):
            read_config(path, {})
        with pytest.raises(SettingsError, match="no such file"):
            read_config(path / "below", {})
        with pytest.raises(SettingsError, match="cannot be read: File name too long"):
            read_config(tmp_path / ("x" * 300), {})


class TestYaml:
    def test_an_empty_file_says_nothing(self, tmp_path: Path) -> None:
        assert read(tmp_path, "# nothing yet\n") == {}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("just words", "keys and values"),
            ("- a\n- b\n", "keys and values"),
            ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
            ("a: [1, 2", "line 1"),
            ("a: 1\n\tb: 2", "line 2"),
            ("a: \x00", "characters that YAML does not allow"),
            ("a: 1\nb: 2\na: 3", "line 3, column 1: the key a stands here a second time"),
            ("x:\n  - {b: 1, b: 2}", "line 2, column 12: the key b"),
            ("1: a", "line 1, column 1: a key must be text"),
            ("x: {yes: a}", "a key must be text"),
            ("x: {[1]: a}", "a key must be text"),
            ("x: {since: 2024-01-01}", "x.since: this is read as a date; put it in quotes"),
            ("x: [2024-01-01 00:00:00]", r"x[0]: this is read as a date"),
            ("x: !!binary aGk=", "x: only texts, numbers"),
            ("x: !!set {a, b}", "x: only texts, numbers"),
            ("x: !!python/object:os.system {}", "this is not YAML"),
            ("x: {a: 18446744073709551616}", "x.a: this number has too many digits"),
            ("x: &a [*a]", "x: is nested more than"),
            ("a: 1\n---\na: 2", "line 2"),
        ],
    )
    def test_what_cannot_be_is_placed(self, tmp_path: Path, text: str, said: str) -> None:
        assert said in refused(tmp_path, text)

    def test_merge_keys_may_be_overridden(self, tmp_path: Path) -> None:
        text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}"
        assert read(tmp_path, text) == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 3, "y": 4}}

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | TEXT,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
            max_leaves=10,
        )
    )
    def test_plain_values_come_as_they_were_written(self, tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
        assert read(tmp_path_factory.mktemp("config"), yaml.safe_dump({"a": value})) == {"a": value}


class TestMerging:
    def test_files_of_a_directory_are_one(self, tmp_path: Path) -> None:
        written(tmp_path, "b: 2", "b.yaml")
        written(tmp_path, "a: {x: 1}", "a.yml")
        written(tmp_path, "not: read", "notes.txt")
        written(tmp_path, "", "empty.yml")
        (tmp_path / "c.yml").mkdir()
        assert read_config(tmp_path, {}).values == {"a": {"x": 1}, "b": 2}

    @pytest.mark.parametrize("key", ["catalog", "uvicorn", "routers"])
    def test_one_key_in_two_files(self, tmp_path: Path, key: str) -> None:
        first, second = written(tmp_path, f"{key}: [1]", "1.yml"), written(tmp_path, f"{key}: [1]", "2.yml")
        with pytest.raises(SettingsError) as caught:
            read_config(tmp_path, {})
        assert str(caught.value) == f"{second}: {key}: stands in {first} already; keep one of them."

    @pytest.mark.parametrize("key", ["allow_origins", "specs", "trees"])
    def test_some_lists_are_gathered_in_the_order_of_the_files(self, tmp_path: Path, key: str) -> None:
        for name in "cab":
            written(tmp_path, f"{key}: [{name}]", f"{name}.yml")
        assert read_config(tmp_path, {}).values == {key: ["a", "b", "c"]}
        last = written(tmp_path, f"{key}: ['$NOTHING']", "d.yml")
        with pytest.raises(SettingsError, match=rf"{tmp_path}/a\.yml, .*, {last}: {key}\[3\]: "):
            read_config(tmp_path, {})
        written(tmp_path, f"{key}: d", "d.yml")
        with pytest.raises(SettingsError, match="already"):
            read_config(tmp_path, {})

    def test_errors_name_the_file_that_holds_the_key(self, tmp_path: Path) -> None:
        written(tmp_path, "a: 1", "a.yml")
        there = written(tmp_path, "b: {c: ['$NOTHING']}", "b.yml")
        with pytest.raises(SettingsError) as caught:
            read_config(tmp_path, {})
        assert str(caught.value).startswith(f"{there}: b.c[0]: the environment variable NOTHING is not set")

    def test_a_directory_without_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"holds no configuration: no file in it ends in .yml or .yaml"):
            read_config(tmp_path, {})

    def test_one_file_is_read_whatever_it_is_called(self, tmp_path: Path) -> None:
        assert read_config(written(tmp_path, "a: 1", "tiled.conf"), {}).values == {"a": 1}


class TestVariables:
    @pytest.mark.parametrize(
        ("text", "filled"),
        [
            ("$A", "one"),
            ("${A}", "one"),
            ("x$A-${B}y", "xone-twoy"),
            ("${A}${B}$A", "onetwoone"),
            ("$DOLLAR", "$A"),  # what comes in by a variable is not looked through again
            ("$EMPTY", ""),
            ("$", "$"),
            ("5$ or $5", "5$ or $5"),
            ("a$$", "a$$"),
        ],
    )
    def test_they_are_filled_in(self, tmp_path: Path, text: str, filled: str) -> None:
        environ = {"A": "one", "B": "two", "DOLLAR": "$A", "EMPTY": ""}
        assert read(tmp_path, f"a: {{b: ['{text}']}}", **environ) == {"a": {"b": [filled]}}

    def test_keys_are_left_as_they_are(self, tmp_path: Path) -> None:
        assert read(tmp_path, "a: {$A: 1}", A="x") == {"a": {"$A": 1}}

    @pytest.mark.parametrize("text", ["$MISSING", "${MISSING}", "/data/$MISSING/x", "postgresql://u:${MISSING}@h/db"])
    def test_one_that_is_missing_is_named_with_the_key(self, tmp_path: Path, text: str) -> None:
        said = refused(tmp_path, f"catalog: {{x: 1, write: [a, '{text}']}}")
        assert "catalog.write[1]: the environment variable MISSING is not set" in said

    @pytest.mark.parametrize("text", ["$MISSING", "${MISSING}", "x${MISSING}"])
    def test_one_that_is_meant_is_named_at_a_secret_too(self, tmp_path: Path, text: str) -> None:
        assert "password: the environment variable MISSING is not set" in refused(tmp_path, f"password: '{text}'")

    @pytest.mark.parametrize("text", ["${}", "${A", "${A-default}", "${A B}"])
    def test_what_is_no_variable(self, tmp_path: Path, text: str) -> None:
        assert "x: a variable is written ${NAME}" in refused(tmp_path, f"x: '{text}'", A="1")


class TestSecrets:
    """Each text holds a secret, and a mistake."""

    @pytest.mark.parametrize(
        "text",
        [
            "password: *hunter2",
            "password: !hunter2",
            "password: [!hunter2 x]",
            'password: "hunter2',
            "password: 'hunter2' hunter2",
            "password: hunter2: x",
            "password:hunter2",
            "password: ok$hunter2",
            "uri: redis://:ok$hunter2@host",
            "single_user_api_key: x$hunter2",
            "secret_keys: ['x$hunter2']",
            "x: {password:hunter2, password:hunter2}",
            "x: {password:hunter2: ['$M']}",
            "x: {password: '${hunter2'}",
            "x: {password: '${hun-ter2}'}",
        ],
    )
    def test_are_not_in_the_error(self, tmp_path: Path, text: str) -> None:
        said = refused(tmp_path, text)
        assert "hun" not in said


def test_an_error_tells_file_and_key() -> None:
    file = ConfigFile("etc", {}, {"a": "etc/a.yml"})
    assert str(file.wrong("a.b[0].c", "is wrong.")) == "etc/a.yml: a.b[0].c: is wrong."
    assert str(file.wrong("b", "is missing.")) == "etc: b: is missing."
