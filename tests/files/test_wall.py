"""The wall: what it lets through, and every way round it that we know."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiled_stream.domain.errors import Forbidden, Malformed
from tiled_stream.files.wall import Wall


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A readable directory with a file, and a secret beside it."""
    inside = tmp_path / "data"
    (inside / "deep").mkdir(parents=True)
    (inside / "a b#?%41é.bin").write_bytes(b"1")
    (tmp_path / "data2").mkdir()
    (tmp_path / "data2" / "secret").write_bytes(b"2")
    (tmp_path / "secret").write_bytes(b"3")
    return inside, tmp_path


def test_what_may_be_read(places: tuple[Path, Path]) -> None:
    inside, _ = places
    file = inside / "a b#?%41é.bin"
    (inside / "link").symlink_to(file)
    wall = Wall([inside])
    quoted = "a%20b%23%3F%2541%C3%A9.bin"
    for uri in (
        f"file://localhost{inside}/{quoted}",
        f"file://LOCALHOST{inside}/{quoted}",
        f"FILE://{inside}/{quoted}",
        f"file:{inside}/{quoted}",
        f"file://localhost{inside}/a b#?%2541é.bin",  # clients that do not quote
        f"file://localhost{inside}//deep/../{quoted}",
        f"file://localhost{inside}/link",
    ):
        assert wall.path_of(uri) == file, uri
    assert wall.path_of(f"file://localhost{inside}/not/yet") == inside / "not/yet"
    assert Wall([f"file://localhost{inside}"]).path_of(f"file://{inside}") == inside
    assert Wall(["/"]).path_of(f"file://{file.parent}/{quoted}") == file


def test_a_readable_directory_may_be_a_link_or_come_later(places: tuple[Path, Path]) -> None:
    inside, root = places
    wall = Wall([root / "later"])
    with pytest.raises(Forbidden):
        wall.path_of(f"file://localhost{inside}/deep")
    (root / "later").symlink_to(inside)
    assert wall.path_of(f"file://localhost{root}/later/deep") == inside / "deep"


@pytest.mark.parametrize(
    "path",
    [
        "{root}/secret",
        "{inside}/../secret",
        "{inside}/%2e%2e/secret",
        "{inside}/deep/..%2F..%2Fsecret",
        "{inside}2/secret",
        "{inside}/out/secret",
        "{inside}/out2",
        "{inside}/deep/up/../secret",
        "/etc/passwd",
        "/proc/self/environ",
        "{root}",
        "",
    ],
)
def test_what_may_not(places: tuple[Path, Path], path: str) -> None:
    inside, root = places
    (inside / "out").symlink_to(root)
    (inside / "out2").symlink_to("../secret")
    (inside / "deep" / "up").symlink_to(root / "data2")
    place = path.format(inside=inside, root=root)
    with pytest.raises((Forbidden, Malformed)) as caught:
        Wall([inside]).path_of(f"file://localhost{place}")
    assert isinstance(caught.value, Forbidden) or not place


@pytest.mark.parametrize(
    "uri",
    [
        "/data/x",
        "data/x",
        "http://localhost/data/x",
        "s3://bucket/x",
        "duckdb:///x",
        "file://elsewhere/data/x",
        "file:data/x",
        "file://localhost",
        "file://localhost/data/\x00x",
        "file://localhost/data/%00x",
        "file://localhost/" + "a" * 300_000,
        "",
    ],
)
def test_what_is_no_file_of_ours(uri: str) -> None:
    with pytest.raises((Malformed, Forbidden)) as caught:
        Wall(["/data"]).path_of(uri)
    assert isinstance(caught.value, Malformed) or len(uri) > 1000


def test_no_password_is_repeated() -> None:
    with pytest.raises(Malformed) as caught:
        Wall(["/data"]).path_of("postgresql://me:topsecret@host/db")
    assert "topsecret" not in str(caught.value)


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(Malformed, match="neither"):
        Wall([tmp_path]).within(tmp_path / "pipe")
    with pytest.raises(Malformed, match="neither"):
        Wall(["/"]).within(tmp_path / "null")


def test_nothing_is_readable_without_a_directory(tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match="-r DIRECTORY"):
        Wall([]).within(tmp_path)


PART = st.sampled_from(["..", ".", "deep", "out", "%2e%2e", "..%2f", "data", "data2", "secret", "", "é", "%25", "%2F"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(parts=st.lists(PART, max_size=7))
def test_what_comes_out_is_always_inside(places: tuple[Path, Path], parts: list[str]) -> None:
    inside, root = places
    if not (inside / "out").is_symlink():
        (inside / "out").symlink_to(root)
    try:
        found = Wall([inside]).path_of(f"file://localhost{inside}/{'/'.join(parts)}")
    except Forbidden:
        return
    assert found.is_relative_to(inside)
    assert not found.is_symlink()
