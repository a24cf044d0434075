"""The fault matrix names tests and figures that exist; a row without a test is a wish."""

from __future__ import annotations

import re

from tiled_stream.http.metrics import FIGURES

from .fences import ROOT
from .test_invariants import REFERENCE, names

PAGE = ROOT / "docs" / "reference" / "fault-matrix.md"


def rows() -> list[list[str]]:
    """The cells of each row of the tables of faults."""
    found = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in PAGE.read_text().splitlines() if line.startswith("|")
    ]
    return [cells for cells in found if len(cells) == 8 and cells[0] != "fault" and not set(cells[0]) <= {"-"}]


def test_every_fault_names_a_test_that_exists() -> None:
    assert len(rows()) > 10
    for fault, *_, kept_by in rows():
        tests = REFERENCE.findall(kept_by)
        assert tests, f"{fault!r} names no test"
        for path, name in tests:
            assert (ROOT / path).exists(), path
            assert name in names(ROOT / path), f"{path}::{name}"


def test_figures_exist() -> None:
    named = set(re.findall(r"`(tiled_stream_\w+)`", PAGE.read_text()))
    assert named
    assert named <= FIGURES.keys()
