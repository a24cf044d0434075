"""The constraints file: names and versions only, so that it works with any package index; nothing direct is left to chance."""

from __future__ import annotations

import re
import tomllib

from .fences import ROOT

LINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")


def normal(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> list[str]:
    """The lines of the file."""
    return (ROOT / "constraints.txt").read_text().splitlines()


def test_only_names_and_versions() -> None:
    assert [line for line in constraints() if not LINE.fullmatch(line)] == []


def test_every_package_once() -> None:
    names = [normal(line.split("==")[0]) for line in constraints()]
    assert len(names) == len(set(names)) > 50


def test_every_direct_requirement_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = {normal(match[0]) for r in wanted if (match := re.match(r"[A-Za-z0-9._-]+", r))} - {"tiled-stream"}
    pinned = {normal(line.split("==")[0]) for line in constraints()}
    assert names - pinned == set()


def test_exact_requirements_agree_with_the_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {normal(name): version for name, version in (line.split("==") for line in constraints())}
    for extra in project["optional-dependencies"].values():
        for requirement in extra:
            if match := re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[.*\])?==(\S+)", requirement):
                assert pinned[normal(match[1])] == match[2]
