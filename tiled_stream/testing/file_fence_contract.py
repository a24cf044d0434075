"""What every store that keeps nodes in directories does when processes are paused, killed, or at work at the same time.

A subclass gives `model`, and `opened`: another open store on the same data. Several of them are several processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ..storage.port import FENCED
from .fence_contract import FencedModel, written
from .file_steps import FileSteps, Killed

__all__ = ["FileFenceContract", "Opened"]

Opened = Callable[[], Awaitable[Any]]


class FileFenceContract:
    """See the module."""

    def model(self, random: Random) -> FencedModel:
        """A node without records."""
        raise NotImplementedError("give the suite a `model`")

    @pytest.fixture
    async def opened(self) -> Opened:
        """Open one more store on the same data; all are closed afterwards."""
        raise NotImplementedError("give the suite a fixture `opened`")

    def history(self, seed: int) -> FencedModel:
        """Thirty records; in every second one of these histories all data are deleted at the tenth."""
        model = written(self.model(Random(seed)), 9)
        if seed % 2:
            model.delete()
        return written(model, 30 - len(model.records))

    async def test_idle_process_that_continues_changes_nothing(self, opened: Opened) -> None:
        """The first process remembers an old state; the second one has gone further under a higher fence."""
        for seed in range(6):
            first, second = await opened(), await opened()
            model = self.history(seed)
            assert await first.apply([model.batch(0, 5, fence=1)]) == [5]
            assert await second.apply([model.batch(5, 20, fence=2)]) == [20]
            for after, upto in ((5, 8), (0, 12), (5, 30), (20, 25), (5, 5)):
                assert await first.apply([model.batch(after, upto, fence=1)]) == [FENCED]
                for store in (first, second, await opened()):
                    assert await store.watermarks([model.node]) == [20]
                    await model.assert_reads(store, upto=20)

    async def test_idle_process_with_a_new_lease_continues_where_the_other_ended(self, opened: Opened) -> None:
        """A batch that begins at the old watermark skips what the other process has stored."""
        for seed in range(6):
            first, second = await opened(), await opened()
            model = self.history(seed)
            for fence, upto in enumerate(range(3, 31, 3), start=1):
                store = first if fence % 2 else second
                assert await store.apply([model.batch(max(0, upto - 7), upto, fence=fence)]) == [upto]
                for reader in (first, second):
                    await model.assert_reads(reader, upto=upto)

    @pytest.mark.parametrize("is_new_lease", [False, True], ids=["at work", "new lease"])
    @pytest.mark.parametrize("seed", range(4))
    async def test_process_paused_at_every_step_cannot_undo_its_successor(
        self, opened: Opened, tmp_path: Path, seed: int, is_new_lease: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        first, second, step, upto = await opened(), await opened(), 0, 16 if seed < 2 else 10
        while True:
            step += 1
            model = self.history(seed)
            await first.apply([model.batch(0, 8, fence=1)])

            def takeover(model: Any = model) -> None:
                work = second.apply([model.batch(8, upto, fence=3)])
                assert asyncio.run_coroutine_threadsafe(work, loop).result(60)[0] >= upto

            steps = FileSteps(tmp_path, at=step, action=takeover)
            with steps.watching():
                answer = await first.apply([model.batch(8, 13, fence=2 if is_new_lease else 1)])
            if not steps.is_done:
                assert answer == [13]
                break
            assert answer in ([FENCED], [13])
            stored = max(upto, await _watermark(second, model))
            assert stored == upto or answer == [13]
            # What the paused process had published before the takeover may show until the records that it is from are applied
            # again: readers wait for the head of the log. Nothing of it shows afterwards.
            for to in (max(stored, 13), 17, 20):
                assert await second.apply([model.batch(stored, to, fence=3)]) == [to]
                await model.assert_reads(second, upto=to)
                await model.assert_reads(first, upto=to)
                assert await first.apply([model.batch(8, to, fence=2)]) == [FENCED]
                stored = to
        assert step > 10

    @pytest.mark.parametrize("later", [0, 1], ids=["same fence", "higher fence"])
    @pytest.mark.parametrize("seed", range(2))
    async def test_process_killed_at_every_step_is_succeeded(self, opened: Opened, tmp_path: Path, seed: int, later: int) -> None:
        step = 0
        while True:
            step += 1
            model = self.history(seed)
            first, second = await opened(), await opened()
            begin = 6 if step % 2 else 0  # a takeover, or the first batch of all
            if begin:
                await second.apply([model.batch(0, begin, fence=1)])
            steps = FileSteps(tmp_path, at=step // 2 + 1, action=_kill)
            with steps.watching():
                try:
                    await first.apply([model.batch(begin, 12, fence=2)])
                except Killed:
                    assert steps.is_done
            watermark = await _watermark(second, model)
            assert watermark in (begin, 12)
            for upto in (max(watermark, 9), 16):
                assert await second.apply([model.batch(watermark, upto, fence=2 + later)]) == [upto]
                watermark = upto
            await model.assert_reads(second, upto=16)
            assert await _watermark(second, model) == 16
            await first.close()
            await second.close()
            if not steps.is_done and step % 2:
                break
        assert step > 30

    async def test_kills_that_follow_each_other_lose_no_watermark(self, opened: Opened, tmp_path: Path) -> None:
        """Each of many takeovers is killed somewhere, most of them before they are complete."""
        for seed in range(12):
            random, model = Random(seed), self.history(seed)
            await (await opened()).apply([model.batch(0, 8, fence=1)])
            watermark = 8
            for fence in range(2, 14):
                steps = FileSteps(tmp_path, at=random.randint(1, 40), action=_kill)
                store = await opened()
                with steps.watching():
                    try:
                        await store.apply([model.batch(watermark, min(watermark + 3, 30), fence=fence)])
                    except Killed:
                        assert steps.is_done
                found = await _watermark(await opened(), model)
                assert watermark <= found <= watermark + 3
                watermark = found
            last = await opened()
            assert await last.apply([model.batch(watermark, fence=99)]) == [30]
            await model.assert_reads(last)

    @pytest.mark.parametrize("later", [0, 1], ids=["same fence", "higher fence"])
    async def test_two_processes_at_once_end_right(self, opened: Opened, later: int) -> None:
        for seed in range(6):
            model = self.history(seed)
            stores = [await opened(), await opened()]

            async def work(store: Any, fence: int, model: Any = model) -> int:
                while (watermark := await _watermark(store, model)) < 30:
                    answers = await store.apply([model.batch(watermark, min(30, watermark + 2), fence=fence)])
                    if answers == [FENCED]:
                        return FENCED
                return 30

            ends = await asyncio.gather(*(work(store, 5 + later * n) for n, store in enumerate(stores)))
            assert ends[1] == 30
            for store in stores:
                assert await _watermark(store, model) == 30
                await model.assert_reads(store)

    @pytest.mark.parametrize("seed", range(15))
    async def test_random_schedules_of_processes_equal_the_model(self, opened: Opened, seed: int) -> None:
        """Leases go round; holders of old ones, and those that remember an old watermark, go on trying."""
        random = Random(seed)
        model = self.history(seed)
        stores = [await opened() for _ in range(3)]
        leases, fence, highest, watermark = [0, 0, 0], 0, 0, 0
        for _ in range(60):
            n = random.randrange(3)
            if random.random() < 0.3:
                fence += 1
                leases[n] = fence
            if random.random() < 0.1:
                stores[n] = await opened()
            after = random.choice((watermark, watermark, random.randint(0, watermark), min(30, watermark + 1)))
            upto = min(30, after + random.randint(0, 4))
            (answer,) = await stores[n].apply([model.batch(after, upto, fence=leases[n])])
            if leases[n] < highest:
                assert answer == FENCED
            else:
                # A fence counts once the store has something of this node.
                highest = leases[n] if watermark or (after == 0 and upto > 0) else highest
                watermark = max(watermark, upto) if after <= watermark else watermark
                assert answer == watermark
            reader = random.choice(stores)
            assert await _watermark(reader, model) == watermark
            await model.assert_reads(reader, upto=watermark)


def _kill() -> None:
    raise Killed


async def _watermark(store: Any, model: FencedModel) -> int:
    (watermark,) = await store.watermarks([model.node])
    assert isinstance(watermark, int)
    return watermark
