"""Versions of the stock client, and what each of them is spared."""

from __future__ import annotations

import pytest

from tiled_stream.domain.errors import Unsatisfiable
from tiled_stream.wire.old_clients import adapted, version_of


@pytest.mark.parametrize(
    "agent", [None, "", "curl/8", "python-tiled/gibberish", "python-tiled/0.2.19", "python-tiled/0.2.20", "python-tiled/1.0.0"]
)
def test_current_clients(agent: str | None) -> None:
    assert version_of(agent) is None


def test_clients_that_are_too_old() -> None:
    for agent in ("python-tiled/0.1.0a77", "python-tiled/0.0.9", "python-tiled/0.1.0a103 x"):
        with pytest.raises(Unsatisfiable, match="upgrade"):
            version_of(agent)


@pytest.mark.parametrize(
    ("agent", "keys", "asset"),
    [
        ("python-tiled/0.1.0a104", {"id", "assets"}, {"data_uri"}),
        ("python-tiled/0.2.3", {"id", "assets"}, {"data_uri"}),
        ("python-tiled/0.2.4", {"id", "assets", "properties"}, {"data_uri"}),
        ("python-tiled/0.2.12", {"id", "assets", "properties"}, {"data_uri"}),
        ("python-tiled/0.2.13", {"id", "assets", "properties"}, {"data_uri", "size"}),
        ("python-tiled/0.2.18", {"id", "assets", "properties"}, {"data_uri", "size"}),
    ],
)
def test_what_they_are_spared(agent: str, keys: set[str], asset: set[str]) -> None:
    version = version_of(agent)
    assert version is not None
    source = {"id": 1, "properties": {}, "assets": [{"data_uri": "file:///x", "size": 5}]}
    told = {"data_sources": [source], "access_tags": ["a"], "metadata": {}}
    adapted(told, version)
    assert set(told) == {"data_sources", "access_blob", "metadata"}
    assert told["access_blob"] == {"tags": ["a"]}
    assert set(source) == keys
    assert set(source["assets"][0]) == asset  # type: ignore[index]
    plain = {"data_sources": None, "access_tags": None}
    adapted(plain, version)
    assert plain == {"data_sources": None, "access_blob": {}}
