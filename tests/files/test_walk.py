"""Which files of a directory are which nodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tiled_stream.files.walk import Rules, walk


def made(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"")


def found(root: Path, **rules: Any) -> dict[str, tuple[str | None, list[str]]]:
    return {"/".join(i.keys): (i.mimetype, [p.name for p in i.paths]) for i in walk(root, Rules(**rules)).items}


def test_names_and_types(tmp_path: Path) -> None:
    made(tmp_path, "a.csv", "b.h5", "c.tar.csv", "d.NXS", "e.xlsx", ".hidden.csv", "sub.dir/x.npy", "empty/", "f.unknown", "g")
    made(tmp_path, "z.zarr/zarr.json", "z.zarr/c/0", "plain/.zgroup", "plain/x/.zarray")
    assert found(tmp_path) == {
        "a": ("text/csv", ["a.csv"]),
        "b": ("application/x-hdf5", ["b.h5"]),
        "c": ("text/csv", ["c.tar.csv"]),
        "d": ("application/x-hdf5", ["d.NXS"]),
        "e": ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ["e.xlsx"]),
        "empty": (None, []),
        "plain": ("application/x-zarr", ["plain"]),
        "sub.dir": (None, []),
        "sub.dir/x": ("application/x-npy", ["x.npy"]),
        "z": ("application/x-zarr", ["z.zarr"]),
    }
    assert walk(tmp_path / "z.zarr", Rules()).items[0].keys == ("z",)


def test_sequences(tmp_path: Path) -> None:
    made(
        tmp_path, "img_10.tif", "img_9.tif", "img_011.tiff", "one5.tif", "1.jpg", "2.jpeg", "a1.npy", "a2.npy", "b1.csv", "b2.csv"
    )
    assert found(tmp_path) == {
        "img_": ("multipart/related;type=image/tiff", ["img_9.tif", "img_10.tif", "img_011.tiff"]),
        "one5": ("image/tiff", ["one5.tif"]),
        "_unnamed": ("multipart/related;type=image/jpeg", ["1.jpg", "2.jpeg"]),
        "a": ("multipart/related;type=application/x-npy", ["a1.npy", "a2.npy"]),
        "b1": ("text/csv", ["b1.csv"]),
        "b2": ("text/csv", ["b2.csv"]),
    }


def test_two_of_one_name_are_none(tmp_path: Path) -> None:
    made(tmp_path, "a.tif", "a.tiff", "b.csv", "b/c.csv", "d1.tif", "d2.tif", "d.csv")
    told = walk(tmp_path, Rules())
    assert [i.keys for i in told.items] == []
    assert [path.name for path, _ in told.left_out] == ["a", "b", "d"]
    assert "a.tif, a.tiff" in told.left_out[0][1]
    (tmp_path / "a.tiff").unlink()
    assert set(found(tmp_path)) == {"a"}


def test_rules(tmp_path: Path) -> None:
    made(tmp_path, "a.csv", "b.CSV", "c.dat", "d.tif", "e/f.csv")
    assert set(found(tmp_path, keeps_suffix=True)) == {"a.csv", "b.CSV", "d.tif", "e", "e/f.csv"}
    assert set(found(tmp_path, include=(".csv",))) == {"a", "b", "e", "e/f"}
    assert found(tmp_path, mimetypes={".dat": "text/csv", ".tif": "image/x"})["c"] == ("text/csv", ["c.dat"])
    asked = []

    def detect(path: str, mimetype: str | None) -> str | None:
        asked.append((Path(path).name, mimetype))
        return None if path.endswith(".csv") else "application/x-npy"

    assert set(found(tmp_path, detect=detect)) == {"b", "c", "d", "e"}
    assert sorted(asked) == [
        ("a.csv", "text/csv"),
        ("b.CSV", "text/csv"),
        ("c.dat", None),
        ("d.tif", "image/tiff"),
        ("f.csv", "text/csv"),
    ]


def test_links_do_not_lead_out_or_round(tmp_path: Path) -> None:
    root = tmp_path / "root"
    made(tmp_path, "secret.csv", "root/a.csv", "root/sub/b.csv")
    (root / "out.csv").symlink_to(tmp_path / "secret.csv")
    (root / "link.csv").symlink_to(root / "sub" / "b.csv")
    (root / "sub" / "up").symlink_to(root)
    (root / "sub" / "self").symlink_to(root / "sub")
    (root / "broken.csv").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe.csv")
    told = walk(root, Rules())
    assert ["/".join(i.keys) for i in told.items] == ["a", "link", "sub", "sub/b"]
    assert [path.name for path, _ in told.left_out] == ["broken.csv", "out.csv", "pipe.csv", "self", "up"]
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    assert [i.keys for i in walk(linked, Rules()).items] == [i.keys for i in told.items]


def test_what_changed_has_another_version(tmp_path: Path) -> None:
    made(tmp_path, "a.csv", "b.csv", "s1.tif", "s2.tif")
    before = {i.keys: i for i in walk(tmp_path, Rules()).items}
    assert {i.keys: i for i in walk(tmp_path, Rules()).items} == before
    (tmp_path / "a.csv").write_bytes(b"x")
    (tmp_path / "s2.tif").write_bytes(b"x")
    after = {i.keys: i for i in walk(tmp_path, Rules()).items}
    assert {keys for keys, item in after.items() if before[keys] != item} == {("a",), ("s",)}


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    told = walk(tmp_path / "nowhere", Rules())
    assert told.items == ()
    assert len(told.left_out) == 1


@pytest.mark.parametrize("count", [2000])
def test_many_files(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"f{number:05}.tif").touch()
    (item,) = walk(tmp_path, Rules()).items
    assert len(item.paths) == count
