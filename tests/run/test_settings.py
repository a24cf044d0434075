"""Settings come from the environment or the caller; what cannot be is refused with its name and the cure; secrets stay secret."""

from __future__ import annotations

import typing

import msgspec
import pytest

from tiled_stream.run.settings import _NOT_IN_ENVIRONMENT, ENVIRONMENT, Settings, SettingsError, from_env


def refused(message: str, *, code: int = 1, **given: object) -> None:
    """These settings are refused, and the sentence says `message`."""
    with pytest.raises(SettingsError, match=message) as caught:
        Settings(**given)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_one_catalog_or_a_temporary_one() -> None:
    assert Settings(temp=True).catalog is None
    assert Settings(catalog="c.db").temp is False
    refused("--temp")
    refused("--temp", catalog="c.db", temp=True)


@pytest.mark.parametrize("key", ["a-b", "a b", "é", "٣", "a\n"])
def test_a_key_is_letters_and_digits(key: str) -> None:
    refused("letters and digits", code=3, temp=True, api_key=key)


def test_a_random_key_is_made_once_and_differs() -> None:
    settings = Settings(temp=True)
    first, second = settings.with_key(), settings.with_key()
    assert first.api_key != second.api_key
    assert first.api_key.isalnum()
    assert len(first.api_key) == 64
    assert first.with_key() is first


def test_the_key_is_not_shown() -> None:
    settings = Settings(temp=True, api_key="topsecret")
    assert "topsecret" not in repr(settings) + str(settings) + f"{settings}"
    assert "api_key='***'" in repr(settings)
    assert "port=8000" in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("exact_count_limit", -2),
        ("port", 65536),
        ("cache_data_ttl", -1.0),
        ("cache_node_bytes", -1),
        ("cache_total_bytes", -1),
        ("persist_linger_seconds", -0.1),
        ("drain_timeout_seconds", -1.0),
        ("barrier_timeout_seconds", 0.0),
        ("ready_backlog_seconds", 0.0),
        ("response_bytesize_limit", 0),
        ("request_bytesize_limit", 0),
        ("send_timeout_seconds", 0.0),
        ("root_path", "tiled"),
        ("root_path", "/tiled/"),
        ("cache", "disk"),
        ("webhook_blocked_networks", ("10.256.0.0/24",)),
        ("webhook_allow_delivery_hosts", ("10.65.128.128",)),
        ("webhook_allow_delivery_hosts", ("https://host/",)),
        ("webhook_secret_keys", ("",)),
    ],
)
def test_what_cannot_be_is_named(name: str, value: object) -> None:
    refused(name, temp=True, **{name: value})


def test_where_the_log_cannot_be() -> None:
    refused("no file that stays", temp=True, cache="local")
    refused("no file that stays", catalog="postgresql://h/d", cache="local")
    refused("--cache redis://HOST", catalog="postgresql://h/d")
    refused(r"not 'http://u:\*\*\*@h'", temp=True, cache="http://u:s3cret@h")
    refused("cache_prefix", temp=True, cache_prefix="a b")
    refused("belong together", temp=True, cache="sentinel")
    refused("belong together", temp=True, cache_sentinels=("h:1",))
    refused("cache_service_name", temp=True, cache="sentinel", cache_sentinels=("h:1",))
    refused("host:port", temp=True, cache="sentinel", cache_sentinels=("h",), cache_service_name="s")


def test_scalable_says_what_is_missing_first() -> None:
    shared = {"catalog": "postgresql://h/d", "scalable": True, "api_key": "k"}
    refused("--api-key", temp=True, scalable=True)
    refused("SQLite catalog.*postgresql://", catalog="c.db", scalable=True, api_key="k")
    refused("duckdb.*postgresql://", **shared, cache="redis://h", write=("duckdb:///t",))
    refused("sqlite.*postgresql://", **shared, cache="redis://h", write=("data", "sqlite:///t"))
    refused("no place that several", **shared, cache="redis://h", write=("data",))
    refused("--cache redis://HOST", **shared, cache="memory")
    assert Settings(**shared, cache="redis://h", write=("data", "postgresql://h/t")).is_shared_log  # type: ignore[arg-type]


def test_no_secret_is_shown() -> None:
    settings = Settings(
        catalog="postgresql://u:s3cret@h/d",
        write=("postgresql://u:s3cret@h/t",),
        cache="redis://:s3cret@h",
        cache_password="s3cret",
        api_key="s3cret",
        webhook_secret_keys=("s3cret",),
    )
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_every_field_can_come_from_the_environment() -> None:
    """A value that differs from the default, by its type, for each field."""
    plain = Settings(temp=True)
    hints = typing.get_type_hints(Settings)
    special = {"catalog": "there.db", "cache": "memory", "root_path": "/x", "api_key": "k1"}
    for name in set(Settings.__struct_fields__) - {"scalable", "cache_sentinels", *_NOT_IN_ENVIRONMENT}:
        default = getattr(plain, name)
        if name in special:
            text, wanted = special[name], special[name]
        elif isinstance(default, bool):
            text, wanted = ("yes", True) if not default or name == "temp" else ("no", False)
        elif isinstance(default, int | float):
            text, wanted = "7", 7
        elif isinstance(default, tuple):
            text, wanted = ("10.0.0.0/8", ("10.0.0.0/8",)) if name.endswith("networks") else ("a, b,", ("a", "b"))
        elif typing.get_origin(hints[name]) is typing.Literal:
            text = wanted = next(choice for choice in typing.get_args(hints[name]) if choice != default)
        else:
            text = wanted = "other"
        given = {} if name in ("catalog", "temp") else {"temp": True}
        assert getattr(from_env({ENVIRONMENT + name.upper(): text}, **given), name) == wanted, name


def test_what_is_given_comes_before_the_environment() -> None:
    environ = {"TILED_STREAM_PORT": "1", "TILED_STREAM_HOST": "there"}
    settings = from_env(environ, temp=True, port=2)
    assert (settings.port, settings.host) == (2, "there")


def test_our_name_comes_before_that_of_the_reference_server() -> None:
    environ = {"TILED_SINGLE_USER_API_KEY": "theirs", "TILED_STREAM_API_KEY": "ours", "TILED_CATALOG_URI": "c.db"}
    settings = from_env(environ)
    assert (settings.api_key, settings.catalog) == ("ours", "c.db")


@pytest.mark.parametrize("text", ["one,two", " one , two,", '["one", "two"]', ' ["one","two"]'])
def test_lists_have_commas_or_are_json(text: str) -> None:
    for name in ("TILED_SECRET_KEYS", "TILED_STREAM_SECRET_KEYS"):
        assert from_env({name: text}, temp=True).secret_keys == ("one", "two")


def test_a_list_that_only_begins_like_json_is_one_text() -> None:
    assert from_env({"TILED_SECRET_KEYS": "[one"}, temp=True).secret_keys == ("[one",)


def test_a_memory_by_its_uri() -> None:
    assert Settings(catalog="c.db", cache="memory://").cache == "memory"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("TILED_STREAM_PROT", "1", "TILED_STREAM_PORT"),
        ("TILED_STREAM_PORT", "many", "TILED_STREAM_PORT='many'"),
        ("TILED_STREAM_PUBLIC", "perhaps", "TILED_STREAM_PUBLIC='perhaps'"),
        ("TILED_STREAM_LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("TILED_STREAM_SEND_TIMEOUT_SECONDS", "nan", "send_timeout_seconds"),
        ("TILED_STREAM_CACHE_DATA_TTL", "inf", "cache_data_ttl"),
    ],
)
def test_a_wrong_environment_is_named(name: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        from_env({name: text}, temp=True)


def test_settings_do_not_change() -> None:
    settings = Settings(temp=True)
    with pytest.raises(AttributeError):
        settings.port = 1  # type: ignore[misc]
    assert msgspec.structs.replace(settings, port=1).port == 1
