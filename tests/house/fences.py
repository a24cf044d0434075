"""Reads the fenced blocks and links of the documentation. What a block is for stands on its opening fence, as its language."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGES", "ROOT", "Block", "blocks", "cells", "commands", "prose", "slugs"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("loadtest/*.md"), *ROOT.glob("deploy/*.md")])

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```\s*$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """One fenced block: its language ("" if none), its text, and the line its text begins at."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    source = page.read_text()
    for match in _FENCE.finditer(source):
        yield Block(match[1], match[2], source.count("\n", 0, match.start(2)) + 1)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def commands(page: Path, *programs: str) -> Iterator[list[str]]:
    """The command lines of `console` blocks (after "$ ", continued by a backslash) that begin with one of `programs`, split."""
    for block in blocks(page):
        if block.language != "console":
            continue
        text = block.text.replace("\\\n", " ")
        for line in text.splitlines():
            if line.startswith(("$ ", "# ")):
                words = shlex.split(line[2:])
                while words and re.fullmatch(r"\w+=.*", words[0]):  # VARIABLE=value before the command
                    words.pop(0)
                if words and words[0] in programs:
                    yield words


def cells(page: Path) -> list[list[str]]:
    """The rows of all tables of a page, without heads and rules; each a list of the texts of its cells."""
    rows: list[list[str]] = []
    lines = prose(page).splitlines()
    for i, line in enumerate(lines):
        if not line.startswith("|") or set(line) <= set("|-: "):
            continue
        is_head = i + 1 < len(lines) and lines[i + 1].startswith("|") and set(lines[i + 1]) <= set("|-: ")
        if not is_head:
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
    return rows


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(text.replace(" ", "-"))
    return found
