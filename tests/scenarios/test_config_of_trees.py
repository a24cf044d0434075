"""A server in a process of its own with trees, a validator and names of the reference in its environment, and the real client."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy
import pytest
import yaml

from tests.run.running import Running

pytest.importorskip("tiled")

VALIDATOR = """
def tidy(*, spec, metadata, entry, structure_family, structure):
    if structure_family == "array" and len(structure.shape) != 1:
        raise ValueError("a line has one dimension")
    return {key.lower(): value for key, value in metadata.items()}
"""


def test_the_real_client_in_two_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiled.client import from_uri
    from tiled.client.utils import ClientError
    from tiled.queries import Key

    for name in [name for name in os.environ if name.startswith("TILED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TILED_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "rules_of_lines.py").write_text(VALIDATOR)
    args = {"uri": str(tmp_path / "c.db"), "writable_storage": [str(tmp_path / "data")], "init_if_not_exists": True}
    config = {
        "trees": [
            {"tree": "catalog", "path": "/a", "args": args | {"mount_node": "/A"}},
            {"tree": "catalog", "path": "/deep/b", "args": args | {"mount_node": ["B"]}},
        ],
        "create_mount_nodes_if_not_exist": True,
        "specs": [{"spec": "line", "validator": "rules_of_lines:tidy"}],
    }
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]),
        "TILED_SINGLE_USER_API_KEY": "secret",
        "TILED_REJECT_UNDECLARED_SPECS": "true",
        "TILED_EXACT_COUNT_LIMIT": "2",
    }
    command = [sys.executable, "-m", "tiled_stream", "serve", "config", str(tmp_path / "config.yml"), "--port", "0"]
    server = Running(command, tmp_path / "log", environment)
    try:
        client = from_uri(server.url, api_key="secret")
        assert list(client) == ["a", "deep"]
        assert list(client["deep"]) == ["b"]
        a, b = client["a"], client["deep"]["b"]
        line = a.write_array(numpy.arange(4), key="x", metadata={"NAME": "first"}, specs=["line"])
        assert dict(line.metadata) == {"name": "first"}
        line.update_metadata({"Color": "red"})
        assert dict(a["x"].metadata) == {"name": "first", "color": "red"}
        for array, spec in ((numpy.zeros((2, 2)), "line"), (numpy.zeros(2), "unheard")):
            with pytest.raises(ClientError, match="400"):
                b.write_array(array, key="x", specs=[spec])
        assert list(b) == []
        b.write_array(numpy.arange(4) + 10, key="x")
        assert a["x"].read().tolist() == [0, 1, 2, 3]
        assert client["deep", "b", "x"].read().tolist() == [10, 11, 12, 13]
        for n in range(4):
            b.create_container(f"c{n}", metadata={"n": n})
        assert len(b) == 5
        assert len(b.search(Key("n") >= 1)) == 3
        assert client["deep"]["b"].item["attributes"]["structure"]["count"] == 3
        client.context.close()
        assert server.stop() == 0
    finally:
        server.kill()
