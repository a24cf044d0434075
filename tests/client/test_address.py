"""Addresses in the forms that the stock client takes; keys never stay in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.client.address import Address, keys_of, parse_address
from tiled_stream.client.credentials import Credentials
from tiled_stream.client.steps import Connect
from tiled_stream.domain.errors import Malformed


@pytest.mark.parametrize(
    ("uri", "base", "path"),
    [
        ("http://h:8000", "http://h:8000/api/v1", ()),
        ("http://h:8000/", "http://h:8000/api/v1", ()),
        ("https://h", "https://h/api/v1", ()),
        ("http://h/api", "http://h/api/v1", ()),
        ("http://h/api/v1", "http://h/api/v1", ()),
        ("http://h/api/v1/", "http://h/api/v1", ()),
        ("http://h/tiled", "http://h/tiled/api/v1", ()),
        ("http://h/tiled/api/v1", "http://h/tiled/api/v1", ()),
        ("http://h/api/v1/metadata/a/b%20c", "http://h/api/v1", ("a", "b c")),
        ("http://h/metadata//a//b", "http://h/api/v1", ("a", "b")),
        ("ws://h:1/api/v1", "http://h:1/api/v1", ()),
        ("wss://h", "https://h/api/v1", ()),
        ("http://[::1]:8000", "http://[::1]:8000/api/v1", ()),
    ],
)
def test_forms(uri: str, base: str, path: tuple[str, ...]) -> None:
    assert parse_address(uri) == (Address(base, path), None)


def test_a_key_is_taken_out() -> None:
    address, key = parse_address("http://h:8000/api/v1?api_key=geheim&x=1")
    assert key == "geheim"
    assert "geheim" not in repr(address) + address.many() + address.single(("a",), 3)


@pytest.mark.parametrize(
    "uri", ["", "h:8000", "ftp://h", "http://", "http://h:port?api_key=geheim", "http://u:geheim@h", "file:///x"]
)
def test_what_is_no_address_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(Malformed) as refusal:
        parse_address(uri)
    assert "geheim" not in str(refusal.value)


def test_urls() -> None:
    address = Address("https://h/p/api/v1")
    assert address.single(("a b", "c/d", "ä"), 7) == (
        "wss://h/p/api/v1/stream/single/a%20b/c%2Fd/%C3%A4?envelope_format=msgpack&start=7"
    )
    assert address.single((), None) == "wss://h/p/api/v1/stream/single/?envelope_format=msgpack"
    assert address.many() == "wss://h/p/api/v1/stream/many?envelope_format=msgpack"
    assert address.array(("x",), "1:2,:3") == "https://h/p/api/v1/array/full/x?slice=1:2,:3"


@given(st.lists(st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1), max_size=5))
def test_paths_as_text_and_as_keys(keys: list[str]) -> None:
    assert keys_of("/".join(keys)) == keys_of(keys) == tuple(keys)


def test_secrets_are_not_shown() -> None:
    for credentials in (Credentials("geheim"), Credentials(token="geheim"), Credentials(token=lambda: "geheim")):
        assert "geheim" not in repr(credentials)
        assert "geheim" in str(credentials.headers())
        assert "geheim" not in repr(Connect("ws://h", credentials.headers()))
    with pytest.raises(Malformed, match="not both"):
        Credentials("a", token="b")
