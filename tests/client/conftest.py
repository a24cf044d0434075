"""A server that the tests of one module share: each keeps to paths of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.client.served import Served, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """A name that nobody else uses."""
    return lambda name: f"{name}{next(_numbers)}"


_numbers = count()
