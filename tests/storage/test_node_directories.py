"""A directory that cannot be removed is an error: it is never said to be deleted (I5)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest

from tiled_stream.storage.node_directories import NodeDirectories


def test_a_directory_that_others_change_all_the_time_is_not_said_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed_by_another(path: Path) -> NoReturn:
        raise FileNotFoundError(path)

    directories = NodeDirectories(tmp_path, None)
    node = uuid4().hex
    directories.place(node).mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", removed_by_another)
    with pytest.raises(OSError, match="same fence"):
        directories.delete(node)
    monkeypatch.undo()
    directories.delete(node)
    assert not directories.place(node).exists()
