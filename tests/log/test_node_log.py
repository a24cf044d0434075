"""The run of retained records, against a plain list: also where places at its front are given back."""

from __future__ import annotations

import random

from tiled_stream.log.node_log import RECORD_OVERHEAD, Retained
from tiled_stream.testing.factories import record


def test_a_long_run_that_grows_and_shrinks() -> None:
    chance = random.Random(3)
    retained = Retained(5)
    model = []
    sequence = 4
    for turn in range(3000):
        growing = (turn // 500) % 2 == 0
        if not model or chance.random() < (0.8 if growing else 0.2):
            sequence += 1
            new = record(sequence, 1, bytes(chance.randrange(50)), time=float(sequence))
            retained.push(new)
            model.append(new)
        else:
            retained.pop()
            model.pop(0)
        assert (retained.first, retained.last) == (sequence + 1 - len(model), sequence)
        assert retained.bytes == retained.resident_bytes
        if model:
            place = chance.randrange(len(model))
            assert retained.time(model[place].sequence) == model[place].time
            last = retained.fit(model[place].sequence - 1, 7, 100)
            assert retained.slice(model[place].sequence, last) == model[place : place + last - model[place].sequence + 1]
    assert retained.bytes == sum(len(r.payload) + RECORD_OVERHEAD for r in model)
