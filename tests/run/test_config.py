"""Every key of a configuration file counts, is known to have no effect, or is refused by name; and who comes before whom."""

from __future__ import annotations

import logging
import re
import types
import typing
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from tiled_stream.run.config import check_config, settings_from_config
from tiled_stream.run.config_keys import KEYS, SECTIONS, Key
from tiled_stream.run.settings import Settings, SettingsError
from tiled_stream.wire.negotiate import BLUESKY_RUN, FORMATS, JSON_SEQ

ALL = sorted(KEYS.values(), key=lambda key: key.path)
#: For what is not plain, a value that this server takes.
TAKEN: dict[str, Any] = {
    "webhook_blocked_networks": ["10.0.0.0/8", "fd00::/8"],
    "root_specs": [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}],
    "providers": [{"provider": "toy", "authenticator": "DictionaryAuthenticator", "args": {"users_to_passwords": {"a": "b"}}}],
    "admins": [{"provider": "toy", "id": "a"}],
    "mounts": [{"path": "/a", "node": "/b"}],
    "specs": [{"spec": "Sample", "validator": "beamline.specs:sample"}, {"spec": "Other"}],
    "root_metadata": {"beamline": {"id": 7}},
    "root_path": "/tiled",
    "cache": "redis://localhost",
    "cache_sentinels": ["a:1", ["b", 2]],
    "log_sync": "full",
    "log_level": "debug",
    "log_format": "json",
    "media_types": {BLUESKY_RUN: {JSON_SEQ: "bluesky_tiled_plugins.exporters:json_seq_exporter"}},
    "file_extensions": {"jsonl": JSON_SEQ},
    "routers": ["bluesky_tiled_plugins.routers.validator:router"],
    "trees[].tree": "catalog",
    "trees[].path": "/",
    "catalog.mount_node": "/",
}
#: Names of keys, whole or the parts between the dots.
NAMES = st.sampled_from(sorted({part for path in KEYS for part in [path, *path.replace("[]", "").split(".")]}))


def nested(path: str, value: Any) -> Any:
    """A mapping that holds `value` at a dotted path; ``[]`` is the first entry of a list."""
    for part in reversed(path.split(".")):
        name, brackets, _ = part.partition("[]")
        value = {name: [value] if brackets else value}
    return value


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both, mapping by mapping; where they meet, the second."""
    both = dict(first)
    for key, value in second.items():
        there = both.get(key)
        both[key] = merged(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return both


class Config:
    """A directory with one file, and the settings that come out of it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "config.yml"

    def write(self, values: Any) -> Config:
        """The file holds these values, or this text."""
        self.path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        return self

    def settings(self, environ: dict[str, str] | None = None, **given: Any) -> Settings:
        """What a server would be started with."""
        return settings_from_config(self.path, environ or {}, **given)

    def error(self, environ: dict[str, str] | None = None, **given: Any) -> str:
        """Why it would not be started."""
        with pytest.raises(SettingsError) as caught:
            self.settings(environ, **given)
        return str(caught.value)

    def one(self, path: str, value: Any) -> Config:
        """The file holds one key, and a catalog, unless the key is about that."""
        rest = {} if re.match(r"catalog\.uri|trees|tiled_stream\.(temp|catalog)$", path) else {"catalog": {"uri": "there.db"}}
        return self.write(merged(rest, nested(path, value)))

    def refuses(self, path: str, value: Any, at: str | None = None) -> str:
        """What is said about a key with this value; it must name the file and the key."""
        said = self.one(path, value).error()
        assert said.startswith(f"{self.path}: {(at or path).replace('[]', '[0]')}: "), said
        return said


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An empty directory for a file."""
    return Config(tmp_path)


def arms(kind: Any) -> set[Any]:
    """The types that a value may have, without their parameters."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return {arm for part in typing.get_args(kind) for arm in arms(part)}
    if typing.get_origin(kind) is typing.Literal:
        return {str}
    return {typing.get_origin(kind) or kind}


def taken(key: Key) -> Any:
    """A value that the key takes and that is not the default."""
    special = TAKEN.get(key.setting) or TAKEN.get(key.path)
    if special is not None:
        return special
    kinds = arms(key.kind)
    for kind, value in ((bool, None), (int, 7), (float, 1.5), (str, "word"), (tuple, ["one", "two"]), (dict, {"x": "y"})):
        if kind in kinds:
            return value if kind is not bool else not getattr(Settings(catalog="c.db"), key.setting or "temp")
    return "anything"


class TestEveryKey:
    @pytest.mark.parametrize("key", ALL, ids=lambda key: key.path)
    def test_a_value_of_the_wrong_type_is_refused_by_name(self, config: Config, key: Key) -> None:
        wrong: dict[Any, Any] = {
            bool: "perhaps", int: "many", float: "much", str: {"a": 1}, tuple: {"a": 1}, dict: ["a"],
        }  # fmt: skip
        kinds = arms(key.kind)
        if Any in kinds:
            assert key.use in ("refused", "harmless")
            return
        value = next(v for v in (12, *wrong.values()) if not any(fits(v, kind) for kind in kinds))
        said = config.refuses(key.path, value)
        assert "this must be" in said
        if isinstance(value, str):
            assert value not in said

    @pytest.mark.parametrize("key", [k for k in ALL if arms(k.kind) == {tuple}], ids=lambda key: key.path)
    def test_a_list_with_a_wrong_entry_is_refused_at_the_entry(self, config: Config, key: Key) -> None:
        value = taken(key)
        said = config.refuses(key.path, [*value, 12], f"{key.path}[{len(value)}]")
        assert "this must be" in said

    @pytest.mark.parametrize("key", ALL, ids=lambda key: key.path)
    def test_nothing_is_as_if_the_key_were_not_there(self, config: Config, key: Key) -> None:
        if key.setting == "catalog" or key.path == "catalog.uri":
            assert "is missing" in config.one(key.path, None).error()
        else:
            environ = {"TILED_CATALOG_URI": "c.db"}
            assert config.one(key.path, None).settings(environ) == Settings(catalog="c.db")

    @pytest.mark.parametrize("key", [k for k in ALL if k.use == "used"], ids=lambda key: key.path)
    def test_what_is_used_fills_its_setting(self, config: Config, key: Key) -> None:
        value = taken(key)
        if key.setting == "scalable":
            assert "--scalable" in config.one(key.path, value).error()
            return
        more = {}
        if key.setting == "cache_sentinels":
            more = {"streaming_cache": {"service_name": "main"}} | ({} if "tiled_" not in key.path else nested_cache())
        config.write(merged(yaml.safe_load(config.one(key.path, value).path.read_text()), more))
        got = getattr(config.settings(), key.setting)
        wanted = tuple(value) if isinstance(value, list) else value
        assert got == (("a:1", "b:2") if key.setting == "cache_sentinels" else wanted)
        assert got != getattr(Settings(catalog="c.db"), key.setting)

    @pytest.mark.parametrize("key", [k for k in ALL if k.use == "understood"], ids=lambda key: key.path)
    def test_what_is_understood_changes_nothing(self, config: Config, caplog: pytest.LogCaptureFixture, key: Key) -> None:
        settings = config.one(key.path, taken(key)).settings({"TILED_CATALOG_URI": "c.db"})
        assert settings == Settings(catalog="c.db")
        assert caplog.messages == []

    @pytest.mark.parametrize("key", [k for k in ALL if k.use == "harmless"], ids=lambda key: key.path)
    def test_what_is_harmless_changes_nothing_and_is_said(
        self, config: Config, caplog: pytest.LogCaptureFixture, key: Key
    ) -> None:
        assert config.one(key.path, taken(key)).settings() == Settings(catalog="there.db")
        assert caplog.messages == [f"{config.path}: accepted and without effect in this server: {key.path}"]

    @pytest.mark.parametrize("key", [k for k in ALL if k.use == "refused"], ids=lambda key: key.path)
    def test_what_is_refused_says_why_unless_it_asks_for_nothing(self, config: Config, key: Key) -> None:
        value = not key.asks_nothing[0] if key.kind is bool else taken(key)
        assert key.why in config.refuses(key.path, value)
        for nothing in key.asks_nothing:
            value = list(nothing) if isinstance(nothing, tuple) else nothing
            assert config.one(key.path, value).settings() == Settings(catalog="there.db")

    @pytest.mark.parametrize("key", ALL, ids=lambda key: key.path)
    def test_a_misspelt_key_is_refused_with_the_nearest(self, config: Config, key: Key) -> None:
        said = config.refuses(f"{key.path}x", 1)
        assert f"there is no such key; did you mean {key.path.replace('[]', '[0]')}?" in said

    @pytest.mark.parametrize("section", sorted(filter(None, SECTIONS)))
    def test_a_section_holds_keys(self, config: Config, section: str) -> None:
        assert "this must be a mapping" in config.refuses(section, "word")


#: What somebody may write anywhere: words that mean something somewhere, and what means nothing.
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["memory", "redis://a", "c.db", "postgresql://h/d", "$HOME", "${", "/", "", "a:1", "10" * 200])
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.lists(st.tuples(st.sampled_from(sorted([*KEYS, *filter(None, SECTIONS)])), ANY), max_size=4))
def test_whatever_is_written_there_are_settings_or_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[str, Any]]
) -> None:
    values: dict[str, Any] = {}
    for path, value in keys:
        values = merged(values, nested(path, value))
    config = Config(tmp_path_factory.mktemp("config")).write(values)
    try:
        assert isinstance(config.settings({"HOME": "/root"}), Settings)
    except SettingsError as error:
        assert str(config.path) in str(error)  # noqa: PT017 - either is right


def nested_cache() -> dict[str, Any]:
    """Our own words for: ask the Sentinels."""
    return {"tiled_stream": {"cache": "sentinel"}}


def fits(value: Any, kind: Any) -> bool:
    """Whether a value may be of a type; a number is good enough for true and false only if it is 0 or 1."""
    if kind in (int, float):
        return isinstance(value, int)
    if kind is bool:
        return False
    return isinstance(value, kind)


def test_the_lists_of_this_file_and_of_the_code_agree() -> None:
    """All four uses occur, and what is called built in is built in."""
    assert {key.use for key in ALL} == {"used", "understood", "harmless", "refused"}
    assert {key.setting for key in ALL} - {""} == set(Settings.__struct_fields__)
    assert JSON_SEQ in FORMATS[BLUESKY_RUN]


class TestUnknownKeys:
    def test_of_the_same_name_elsewhere(self, config: Config) -> None:
        assert "did you mean uvicorn.port?" in config.refuses("port", 8000)

    def test_like_nothing(self, config: Config) -> None:
        assert "there is no such key; there are prometheus." in config.refuses("metrics.zzz", 1)

    def test_with_a_space_forgotten(self, config: Config) -> None:
        said = config.write("catalog: {uri: c.db}\nauthentication: {single_user_api_key:hunter2}").error()
        assert "single_user_api_key: there is no such key; a space is missing after the colon." in said
        assert "hunter2" not in said


class TestCatalog:
    def test_is_needed(self, config: Config) -> None:
        for values in ({}, {"catalog": {}}, {"catalog": None}, {"tiled_stream": {"temp": False}}, {"trees": []}):
            assert "catalog.uri: is missing: where the catalog is" in config.write(values).error()

    def test_may_be_temporary(self, config: Config) -> None:
        assert config.write({"tiled_stream": {"temp": True}}).settings() == Settings(temp=True)
        said = config.write({"tiled_stream": {"temp": True}, "catalog": {"uri": "c.db"}}).error()
        assert "not both" in said
        assert f"--temp is the key tiled_stream.temp of {config.path}" in said

    def test_as_a_tree(self, config: Config) -> None:
        args = {
            "uri": "sqlite:////srv/catalog.db",
            "writable_storage": ["/srv/data", "duckdb:////srv/t.duckdb"],
            "readable_storage": ["/beamline"],
            "init_if_not_exists": True,
            "metadata": {"a": 1},
            "specs": [{"name": "x"}],
            "catalog_pool_size": 9,
        }
        plain = config.write({"catalog": args}).settings()
        assert plain.root_specs == ({"name": "x", "version": None},)
        for tree in ("catalog", "tiled.catalog:from_uri"):
            for path in ("/", ""):
                assert config.write({"trees": [{"tree": tree, "path": path, "args": args}]}).settings() == plain

    def test_errors_in_a_tree_are_placed_there(self, config: Config) -> None:
        assert "trees[0].args.writable_storage: this must be a list" in tree_error(config, writable_storage="data")
        assert "trees[0].args.writable_storage[1]: this must be text" in tree_error(config, writable_storage=["data", 1])
        assert "did you mean trees[0].args.writable_storage?" in tree_error(config, writeable_storage=[])
        assert "catalog.writable_storage: this must be a list" in config.refuses("catalog.writable_storage", "data")

    def test_not_both_ways(self, config: Config) -> None:
        said = config.write({"catalog": {"uri": "c.db"}, "trees": [{"tree": "catalog", "path": "/"}]}).error()
        assert "trees: 'catalog'" in said

    def test_trees_are_parts_of_one_catalog(self, config: Config) -> None:
        assert "not loaded" in config.refuses("trees[].tree", "tiled.examples.generated:tree")
        specs = [{"name": "x", "version": None}]
        args = {"uri": "c.db", "writable_storage": ["data"]}
        one = {"tree": "catalog", "path": "/one/", "args": args | {"mount_node": ["A", "B"], "specs": specs}}
        two = {"path": "two", "tree": "catalog", "args": args | {"mount_node": "C/"}}
        settings = config.write({"trees": [one, two], "create_mount_nodes_if_not_exist": True}).settings()
        assert settings == Settings(
            catalog="c.db",
            write=("data",),
            mounts=({"path": "/one", "node": "/A/B", "specs": specs}, {"path": "/two", "node": "/C"}),
            create_mount_nodes_if_not_exist=True,
        )
        assert config.one("catalog.uri", "c.db").settings().mounts == ()
        simple = config.write({"catalog": {"uri": "c.db", "mount_node": "/A", "specs": specs}}).settings()
        assert (simple.mounts, simple.root_specs) == (({"path": "/", "node": "/A", "specs": specs},), ())
        deep = config.write({"trees": [{"tree": "catalog", "path": "/a/b", "args": {"uri": "c.db", "specs": specs}}]}).settings()
        assert (deep.mounts, deep.root_specs) == (({"path": "/a/b", "node": "/"},), tuple(specs))

    @pytest.mark.parametrize("args", [{"uri": "d.db"}, {}, {"uri": "c.db", "readable_storage": ["data"]}])
    def test_trees_of_different_catalogs_are_refused(self, config: Config, args: dict[str, Any]) -> None:
        trees = [{"path": "/a", "args": {"uri": "c.db"}}, {"path": "/b", "args": args}]
        said = config.write({"trees": trees}).error()
        assert "trees[1].args." in said
        assert "start a server for each other catalog" in said

    @pytest.mark.parametrize("paths", [("/", "/one"), ("/one/", "/one/two"), ("one/two", "one"), ("one", "one")])
    def test_trees_do_not_lie_in_each_other(self, config: Config, paths: tuple[str, str]) -> None:
        for places, nodes in ((paths, ("X", "Y")), (("/x", "/y"), paths)):
            args = [{"uri": "c.db", "mount_node": node} for node in nodes]
            trees = [{"path": path, "args": arg} for path, arg in zip(places, args, strict=True)]
            assert "one of them is, or lies in, the other" in config.write({"trees": trees}).error()

    def test_numbers_are_not_texts(self, config: Config) -> None:
        """YAML reads 3.0 as a number; the cure is in the sentence."""
        said = config.refuses("catalog.specs", [{"name": "x", "version": 3.0}], "catalog.specs[0].version")
        assert "put it in quotes" in said
        assert "unknown field `verison`" in config.refuses("catalog.specs", [{"name": "x", "verison": "3"}], "catalog.specs[0]")

    def test_one_setting_under_two_names(self, config: Config) -> None:
        said = config.write({"catalog": {"uri": "c.db", "catalog_pool_size": 3}, "catalog_pool_size": 4}).error()
        assert "catalog_pool_size: says the same as catalog.catalog_pool_size; keep one of the two." in said


def tree_error(config: Config, **args: Any) -> str:
    """What is said of a tree with these arguments."""
    return config.write({"trees": [{"tree": "catalog", "path": "/", "args": {"uri": "c.db"} | args}]}).error()


class TestStreaming:
    def test_in_memory(self, config: Config, caplog: pytest.LogCaptureFixture) -> None:
        assert config.one("streaming_cache.uri", "memory").settings().cache == "memory"
        assert "streaming_cache.uri keeps the log in memory" in caplog.text
        assert "take the key out" in caplog.text

    def test_in_memory_is_no_surprise_where_everything_is_forgotten(
        self, config: Config, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = config.write({"tiled_stream": {"temp": True, "cache": "memory"}}).settings()
        assert settings == Settings(temp=True, cache="memory")
        assert caplog.messages == []

    def test_behind_sentinels(self, config: Config) -> None:
        section = {"sentinels": ["a:26379", ["b", 26380]], "service_name": "main", "password": "p", "ssl": True}
        settings = config.one("streaming_cache", section).settings()
        assert (settings.cache, settings.cache_sentinels) == ("sentinel", ("a:26379", "b:26380"))
        assert (settings.cache_service_name, settings.cache_password, settings.cache_ssl) == ("main", "p", True)
        said = config.one("streaming_cache", {"sentinels": ["a:26379"]}).error()
        assert "'cache_service_name' is the key streaming_cache.service_name" in said

    @pytest.mark.parametrize("entry", ["a", "a:", ":1", "a:b", "redis://:hunter2@a:1", "u:hunter2@a:1"])
    def test_a_sentinel_is_a_host_and_a_port(self, config: Config, entry: str) -> None:
        said = config.refuses("streaming_cache.sentinels", ["a:1", entry], "streaming_cache.sentinels[1]")
        assert "host:port" in said
        assert "hunter2" not in said

    @pytest.mark.parametrize(
        ("key", "value", "cure"),
        [
            ("sentinels", ["a:1"], "keep one"),
            ("service_name", "main", "take it out"),
            ("password", "hunter2", "redis://:PASSWORD@"),
            ("ssl", True, "rediss://"),
        ],
    )
    def test_a_uri_stands_alone(self, config: Config, key: str, value: Any, cure: str) -> None:
        said = config.one("streaming_cache", {"uri": "redis://a", key: value}).error()
        assert f"streaming_cache.{key}: cannot stand beside streaming_cache.uri" in said
        assert cure in said
        assert "hunter2" not in said


#: What a server for Bluesky runs is configured with in the field.
BLUESKY = """
catalog:
  uri: sqlite:////srv/catalog.db
  writable_storage: ["/srv/data", "duckdb:////srv/tab.duckdb"]
  readable_storage: ["/beamline/data"]
  init_if_not_exists: true
  specs: [{name: CatalogOfBlueskyRuns, version: "3.0"}]
streaming_cache: {uri: memory}
media_types:
  BlueskyRun:
    application/json-seq: bluesky_tiled_plugins.exporters:json_seq_exporter
file_extensions: {jsonl: application/json-seq}
routers: [bluesky_tiled_plugins.routers.validator:router]
"""


class TestBuiltIn:
    def test_a_file_from_the_field_is_taken_as_it_is(self, config: Config) -> None:
        assert config.write(BLUESKY).settings() == Settings(
            catalog="sqlite:////srv/catalog.db",
            write=("/srv/data", "duckdb:////srv/tab.duckdb"),
            read=("/beamline/data",),
            init=True,
            root_specs=({"name": "CatalogOfBlueskyRuns", "version": "3.0"},),
            cache="memory",
        )

    def test_what_the_plugins_ask_for(self, config: Config) -> None:
        values = {key: TAKEN[key] for key in ("media_types", "file_extensions", "routers")}
        specs = tuple({"spec": name} for name in ("CatalogOfBlueskyRuns", "BlueskyRun"))
        values |= {"catalog": {"uri": "c.db"}, "specs": [*specs]}
        assert config.write(values).settings() == Settings(catalog="c.db", specs=specs)

    def test_a_spec_is_declared_once(self, config: Config) -> None:
        said = config.refuses("specs", [{"spec": "a"}, {"spec": "b"}, {"spec": "a", "validator": "m:f"}], "specs[2].spec")
        assert "'a' is declared above already" in said

    def test_the_log_in_memory_by_a_uri(self, config: Config) -> None:
        assert config.one("streaming_cache.uri", "memory://").settings().cache == "memory"

    @pytest.mark.parametrize(
        ("path", "value", "at", "said"),
        [
            ("media_types", {"array": {"image/png": "my.module:png"}}, ".array.image/png", "other exporters are not loaded"),
            ("media_types", {BLUESKY_RUN: {JSON_SEQ: "my.module:mine"}}, f".{BLUESKY_RUN}.{JSON_SEQ}", "take it out"),
            ("file_extensions", {"jsons": JSON_SEQ}, ".jsons", "its extensions are json-seq, jsonl"),
            ("file_extensions", {"webp": "image/webp"}, ".webp", "no such format"),
            ("routers", [TAKEN["routers"][0], "my.module:router"], "[1]", "validator:router is built in"),
        ],
    )
    def test_what_is_not_built_in(self, config: Config, path: str, value: Any, at: str, said: str) -> None:
        assert said in config.refuses(path, value, path + at)


class TestPrecedence:
    def test_file_then_environment_then_command_line(self, config: Config) -> None:
        config.one("uvicorn.port", 1)
        assert config.settings().port == 1
        assert config.settings({"TILED_STREAM_PORT": "2"}).port == 2
        assert config.settings({"TILED_STREAM_PORT": "2"}, port=3).port == 3

    @pytest.mark.parametrize("name", ["TILED_SINGLE_USER_API_KEY", "TILED_STREAM_API_KEY"])
    def test_under_either_name(self, config: Config, name: str) -> None:
        config.one("authentication.single_user_api_key", "infile")
        assert config.settings({name: "inenvironment"}).api_key == "inenvironment"

    def test_the_catalog_is_one_choice(self, config: Config) -> None:
        config.one("catalog.uri", "file.db")
        assert config.settings({"TILED_CATALOG_URI": "env.db"}).catalog == "env.db"
        assert config.settings({"TILED_STREAM_TEMP": "1"}) == Settings(temp=True)
        assert config.settings({"TILED_STREAM_CATALOG": "env.db"}, temp=True) == Settings(temp=True)
        assert config.settings({"TILED_STREAM_TEMP": "1"}, catalog="given.db") == Settings(catalog="given.db")
        assert config.write({}).settings({"TILED_CATALOG_URI": "env.db"}).catalog == "env.db"

    def test_the_log_is_one_choice(self, config: Config) -> None:
        config.one("streaming_cache", {"sentinels": ["a:1"], "service_name": "main"})
        assert config.settings({"TILED_STREAM_CACHE": "local"}).cache_sentinels == ()
        assert config.settings(cache="memory").cache == "memory"
        there = {"TILED_STREAM_CACHE": "sentinel", "TILED_STREAM_CACHE_SENTINELS": "b:2"}
        assert config.settings(there).cache_sentinels == ("b:2",)
        assert config.settings(there, cache="memory").cache_sentinels == ()

    def test_a_password_may_come_from_the_environment_alone(self, config: Config) -> None:
        config.one("streaming_cache", {"sentinels": ["a:1"], "service_name": "main"})
        settings = config.settings({"TILED_STREAM_CACHE_PASSWORD": "p"})
        assert (settings.cache_sentinels, settings.cache_password) == (("a:1",), "p")

    @pytest.mark.parametrize("text", ["$PORT", "${PORT}"])
    def test_variables_become_what_the_key_needs(self, config: Config, text: str) -> None:
        assert config.one("uvicorn.port", text).settings({"PORT": "9000"}).port == 9000
        config.one("authentication.allow_anonymous_access", text)
        for word, truth in {"true": True, "yes": True, "0": False, "No": False}.items():
            assert config.settings({"PORT": word}).public is truth

    def test_a_mistake_in_the_environment_is_not_blamed_on_the_file(self, config: Config) -> None:
        config.one("uvicorn.port", 1)
        assert config.error({"TILED_STREAM_PORT": "many"}).startswith("TILED_STREAM_PORT='many' cannot be")
        assert str(config.path) not in config.error({"TILED_STREAM_PORT": "-1"})


class TestValuesThatCannotBe:
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("uvicorn.port", 99999),
            ("streaming_cache.data_ttl", -1),
            ("streaming_cache.data_ttl", float("nan")),
            ("response_bytesize_limit", 0),
            ("catalog.catalog_pool_size", 0),
            ("tiled_stream.cache_prefix", "two words"),
            ("tiled_stream.send_timeout_seconds", 0),
        ],
    )
    def test_are_named_as_in_the_file(self, config: Config, path: str, value: Any) -> None:
        said = config.one(path, value).error()
        assert f" is the key {path} of {config.path}" in said

    @pytest.mark.parametrize(("path", "value"), [("uvicorn.log_level", "loud"), ("tiled_stream.log_sync", "maybe")])
    def test_of_a_choice_show_the_choices(self, config: Config, path: str, value: str) -> None:
        said = config.refuses(path, value)
        assert "this must be one of" in said
        assert value not in said

    def test_that_only_together_cannot_be(self, config: Config) -> None:
        said = config.one("catalog.uri", "postgresql://u:hunter2@h/db").error()
        assert "--cache is the key streaming_cache.uri" in said
        assert "hunter2" not in said
        said = config.one("catalog.uri", "c.db").error(scalable=True)
        assert "--api-key is the key authentication.single_user_api_key" in said

    def test_root_paths_are_read_as_the_reference_server_does(self, config: Config) -> None:
        for text in ("tiled", "/tiled", "/tiled/"):
            assert config.one("uvicorn.root_path", text).settings().root_path == "/tiled"
        assert config.one("uvicorn.root_path", "/").settings().root_path == ""


class TestSecrets:
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("authentication.single_user_api_key", "hunter2!"),
            ("authentication.single_user_api_key", ["hunter2"]),
            ("authentication.secret_keys", "hunter2"),
            ("authentication.providers", [{"provider": "x", "args": {"secret": "hunter2"}}]),
            ("database.uri", ["postgresql://u:hunter2@h/db"]),
            ("streaming_cache.uri", ":hunter2@host:6379"),
            ("streaming_cache.uri", {"hunter2": 1}),
            ("streaming_cache.password", ["hunter2"]),
            ("tiled_stream.cache", "hunter2"),
            ("tiled_stream.cache_sentinels", ["hunter2"]),
            ("tiled_stream.api_key", "hunter2!"),
            ("webhooks.secret_keys", "hunter2"),
            ("webhooks.secret_keys", [["hunter2"]]),
            ("uvicorn.ssl_keyfile_password", "hunter2"),
            ("catalog.uri", {"a": "hunter2"}),
            ("catalog.writable_storage", "postgresql://u:hunter2@h/db"),
            ("uvicorn.port", "hunter2"),
            ("uvicorn.log_level", "hunter2"),
        ],
    )
    def test_are_not_in_the_error(self, config: Config, path: str, value: Any) -> None:
        config.one(path, value)
        assert "hunter2" not in config.error()
        # Nor if they came by a variable.
        config.one(path, yaml.safe_load(yaml.safe_dump(value).replace("hunter2", "${SECRET}")))
        assert "hunter2" not in config.error({"SECRET": "hunter2"})

    def test_are_not_in_the_log(self, config: Config, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        config.one("database.uri", "postgresql://u:hunter2@h/db").settings()
        config.one("streaming_cache.seq_ttl", 5).settings()
        assert "streaming_cache.seq_ttl" in caplog.text
        assert "hunter2" not in caplog.text

    @pytest.mark.parametrize("key", ["a-b", "é", ""])
    def test_a_wrong_key_ends_the_command_as_the_reference_server_does(self, config: Config, key: str) -> None:
        with pytest.raises(
            SettingsError, match=r"authentication\.single_user_api_key: the key must consist of letters"
        ) as caught:
            config.one("authentication.single_user_api_key", key).settings()
        assert caught.value.code == 3


def test_checking_says_the_same_and_makes_nothing(config: Config) -> None:
    config.one("catalog.init_if_not_exists", True)
    check_config(config.path, {})
    assert list(config.path.parent.iterdir()) == [config.path]
    with pytest.raises(SettingsError, match=r"uvicorn\.prot: there is no such key; did you mean uvicorn\.port\?"):
        check_config(config.one("uvicorn.prot", 1).path, {})


def test_files_of_a_directory_make_one_configuration(tmp_path: Path) -> None:
    (tmp_path / "10-catalog.yml").write_text("catalog: {uri: c.db}\nallow_origins: [http://a]\n")
    (tmp_path / "20-site.yaml").write_text("allow_origins: [http://b]\nuvicorn: {port: 1}\n")
    settings = settings_from_config(tmp_path, {})
    assert (settings.catalog, settings.port, settings.allow_origins) == ("c.db", 1, ("http://a", "http://b"))
    (tmp_path / "30-more.yml").write_text("metrics: {prometheus: 3}\n")
    with pytest.raises(SettingsError, match=r"30-more\.yml: metrics\.prometheus: this must be true or false"):
        settings_from_config(tmp_path, {})
