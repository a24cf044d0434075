"""Holds of a directory: what is in `.applied`, who may take over, and what happens on file systems that can do less."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tiled_stream.storage import fenced_directory
from tiled_stream.storage.fenced_directory import HOLDS, HeldDirectory, HoldLost, acquire, stored_watermark


def held(place: Path, fence: int) -> HeldDirectory:
    """The hold under this fence."""
    hold = acquire(str(place), fence)
    assert hold is not None
    return hold


def entries(place: Path) -> list[list[str]]:
    """The holds, each as the names in it."""
    return [sorted(p.name for p in hold.iterdir()) for hold in sorted((place / HOLDS).iterdir())]


def test_directory_has_one_hold_whose_entry_is_the_watermark(tmp_path: Path) -> None:
    for fence in (3, 3, 7):
        hold = held(tmp_path, fence)
        hold.put("a", b"content")
        hold.commit(hold.watermark + 5)
        assert entries(tmp_path) == [[f"at-{hold.watermark}"]]
    assert stored_watermark(str(tmp_path)) == 15
    assert acquire(str(tmp_path), 6) is None
    assert entries(tmp_path) == [["at-15"]]


def test_watermark_never_goes_back(tmp_path: Path) -> None:
    hold = held(tmp_path, 1)
    for watermark in (4, 2, 4):
        hold.commit(watermark)
    assert stored_watermark(str(tmp_path)) == 4


def test_every_call_of_a_predecessor_fails(tmp_path: Path) -> None:
    old = held(tmp_path, 1)
    old.put("a", b"old")
    new = held(tmp_path, 2)
    new.put("b", b"new")
    Path(tmp_path / "c").write_bytes(b"c")
    calls: list[Any] = [
        lambda: old.put("b", b"x"),
        lambda: old.publish("b"),
        lambda: old.extend("b", [(0, b"x")]),
        lambda: old.remove("b"),
        lambda: old.remove("none"),
        lambda: old.clear(),
        lambda: old.commit(9),
        lambda: old.verify(),
    ]
    for call in calls:
        with pytest.raises(HoldLost):
            call()
    assert not old.is_valid()
    assert (tmp_path / "b").read_bytes() == b"new"
    assert (tmp_path / "c").exists()


def test_file_that_a_predecessor_was_extending_is_replaced(tmp_path: Path) -> None:
    old = held(tmp_path, 1)
    old.put("a", b"0123")
    os.link(tmp_path / "a", tmp_path / HOLDS / old.name / "open-a")  # paused in the middle of `extend`
    with open(tmp_path / "a", "r+b", buffering=0) as file:
        crashed = held(tmp_path, 2)  # a successor that dies before it has replaced the file passes the duty on
        os.link(tmp_path / "a", tmp_path / HOLDS / crashed.name / "open-a")
        new = held(tmp_path, 3)
        file.write(b"late")
    assert (tmp_path / "a").read_bytes() == b"0123"
    assert new.extend("a", [(4, b"45"), (0, b"x")])
    assert (tmp_path / "a").read_bytes() == b"x12345"
    assert entries(tmp_path) == [[]]


def test_file_system_without_hard_links_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = held(tmp_path, 1)
    hold.put("a", b"0123")

    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(fenced_directory.os, "link", refuse)
    assert not hold.extend("a", [(0, b"x")])
    assert (tmp_path / "a").read_bytes() == b"0123"


def test_hold_with_files_that_nfs_keeps_does_not_block_a_successor(tmp_path: Path) -> None:
    old = held(tmp_path, 1)
    old.commit(8)
    (tmp_path / HOLDS / old.name / ".nfs0001").touch()  # removed, but still open in a process of this machine
    new = held(tmp_path, 2)
    assert new.watermark == stored_watermark(str(tmp_path)) == 8
    with pytest.raises(HoldLost):
        old.put("a", b"x")
    assert held(tmp_path, 3).watermark == 8


def test_takeover_goes_on_while_the_predecessor_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The predecessor commits and stages between any two calls of the successor: nothing of what it committed is lost."""
    old = held(tmp_path, 1)
    old.commit(1)
    unlink, committed = os.unlink, [1]

    def busy(path: str) -> None:
        if len(committed) < 5:
            old.commit(committed[-1] + 1)
            committed.append(committed[-1] + 1)
        unlink(path)

    monkeypatch.setattr(fenced_directory.os, "unlink", busy)
    new = held(tmp_path, 2)
    monkeypatch.undo()
    assert new.watermark == committed[-1] == 5
    with pytest.raises(HoldLost):
        old.commit(6)
    assert entries(tmp_path) == [["at-5"]]


def test_directory_of_an_earlier_version_has_the_watermark_zero(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").touch()
    assert stored_watermark(str(tmp_path)) == 0
    assert held(tmp_path, 1).watermark == 0


def test_error_of_the_disk_is_not_a_lost_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = held(tmp_path, 1)

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(fenced_directory.os, "pwrite", full)
    with pytest.raises(OSError, match="full"):
        hold.put("a", b"x")
    monkeypatch.undo()
    assert held(tmp_path, 1).watermark == 0  # begins without what was left half done
    assert entries(tmp_path) == [[]]
