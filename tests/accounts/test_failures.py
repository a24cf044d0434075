"""How often a password may be guessed: compared with a list of all that happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.accounts.failures import OF_ADDRESS, OF_NAME, SECONDS, Failures
from tiled_stream.domain.errors import TooOften

ATTEMPTS = st.lists(st.tuples(st.floats(0, 9), st.sampled_from("ab"), st.sampled_from("xy"), st.booleans()), max_size=150)


@given(ATTEMPTS)
def test_only_so_many_failures_within_a_minute(attempts: list[tuple[float, str, str, bool]]) -> None:
    failures = Failures()
    failed: list[tuple[float, str, str]] = []
    now = 0.0
    for pause, address, name, is_right in attempts:
        now += pause
        recent = [(a, n) for at, a, n in failed if at > now - SECONDS]
        is_full = recent.count((address, name)) >= OF_NAME or [a for a, _ in recent].count(address) >= OF_ADDRESS
        if is_full:
            with pytest.raises(TooOften) as caught:
                failures.begin(address, name, now=now)
            assert 0 < caught.value.retry_after <= SECONDS
            continue
        failures.begin(address, name, now=now)
        if is_right:
            failures.forgive(address, name, began=now)
        else:
            failed.append((now, address, name))


def test_an_address_is_bounded_whatever_the_names() -> None:
    failures = Failures()
    for i in range(OF_ADDRESS):
        failures.begin("a", str(i), now=0.0)
    with pytest.raises(TooOften):
        failures.begin("a", "new", now=1.0)
    failures.begin("b", "new", now=1.0)
    failures.begin("a", "new", now=SECONDS)


def test_what_was_right_leaves_nothing() -> None:
    failures = Failures()
    for i in range(1000):
        failures.begin("a", "x", now=float(i))
        failures.forgive("a", "x", began=float(i))
    assert failures._times == {}
