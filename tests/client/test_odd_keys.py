"""Children whose keys a client puts into a URL as they are: the stock client finds them all the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

from tests.client.served import KEY, Served

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tiled") is None, reason="tiled is not installed; `make setup` does")

ODD = ("q?x", "h#x", "per%cent", "a%20b", "%3F#?")


@pytest.fixture
def client(server: Served) -> Iterator[Any]:
    from tiled.client import from_uri

    found = from_uri(server.uri.split("?")[0], api_key=KEY)
    yield found
    found.context.close()


def test_children_with_odd_keys_are_found_read_and_deleted(client: Any, fresh: Callable[[str], str]) -> None:
    key = fresh("box")
    box = client.create_container(key)
    for number, odd in enumerate(ODD):
        inner = box.create_container(odd, metadata={"number": number})
        inner.write_array(numpy.arange(number + 1), key="cells")
    box.write_array(numpy.arange(7), key="plain")
    assert list(client[key]) == [*ODD, "plain"]
    assert len(client[key]) == len(ODD) + 1
    for number, odd in enumerate(ODD):
        found = client[key][odd]
        assert found.metadata["number"] == number
        assert found["cells"].read().tolist() == list(range(number + 1))
    assert client[key, "plain"].read().tolist() == list(range(7))
    client[key][ODD[0]].delete(recursive=True, external_only=False)
    assert list(client[key]) == [*ODD[1:], "plain"]


def test_a_container_without_odd_keys_does_not_tell_its_children(client: Any, fresh: Callable[[str], str]) -> None:
    key = fresh("box")
    client.create_container(key).create_container("50% of it")
    assert client[key].item["attributes"]["structure"] == {"contents": None, "count": 1}
    assert client[key]["50% of it"].path_parts[-1] == "50% of it"
