"""The thread of an engine: errors go to the waiter, cancelling tears nothing, closing finishes and joins."""

from __future__ import annotations

import asyncio
import threading
from time import sleep
from typing import Any

import pytest

from tiled_stream.domain.errors import Unavailable
from tiled_stream.storage.engine_thread import EngineThread


async def test_work_is_done_in_order_in_one_named_thread() -> None:
    thread = EngineThread("engine")
    names = await asyncio.gather(*(thread.run(lambda n: (n, threading.current_thread().name), n) for n in range(20)))
    assert names == [(n, "engine 0") for n in range(20)]
    await thread.close()


async def test_an_error_goes_to_its_waiter_and_the_thread_lives_on() -> None:
    thread = EngineThread("engine")
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        await thread.run(lambda: exit_with(3))
    assert await thread.run(int, "7") == 7
    await thread.close()


def exit_with(code: int) -> None:
    """As a library might."""
    raise SystemExit(code)


async def test_a_waiter_that_is_cancelled_does_not_stop_the_work() -> None:
    thread = EngineThread("engine")
    gate, done = threading.Event(), []
    first = asyncio.create_task(thread.run(gate.wait), name="first")
    second = asyncio.create_task(thread.run(lambda: done.append("second")), name="second")
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    for task in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await task
    gate.set()
    await thread.close()
    assert done == ["second"]


async def test_an_error_without_a_waiter_is_still_heard() -> None:
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    thread = EngineThread("engine")
    gate = threading.Event()
    task = asyncio.create_task(thread.run(lambda: gate.wait() and 1 // 0), name="fails")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await thread.close()
    assert [type(c["exception"]) for c in heard] == [ZeroDivisionError]


async def test_closing_finishes_what_was_queued_joins_and_may_be_repeated() -> None:
    before = threading.active_count()
    thread = EngineThread("engine", threads=3)
    done: list[int] = []
    tasks = [asyncio.create_task(thread.run(lambda n: (sleep(0.002), done.append(n)), n), name=str(n)) for n in range(30)]
    await asyncio.sleep(0)
    await asyncio.gather(thread.close(), thread.close())
    await thread.close()
    await asyncio.gather(*tasks)
    assert sorted(done) == list(range(30))
    assert threading.active_count() == before
    with pytest.raises(Unavailable):
        await thread.run(int)


async def test_one_that_never_worked_has_no_thread() -> None:
    before = threading.active_count()
    thread = EngineThread("engine")
    assert threading.active_count() == before
    await thread.close()


async def test_the_loop_stays_free_meanwhile() -> None:
    thread = EngineThread("engine")
    gate = threading.Event()
    task = asyncio.create_task(thread.run(gate.wait), name="blocks")
    for _ in range(10):
        await asyncio.sleep(0.001)
    assert not task.done()
    gate.set()
    assert await task is True
    await thread.close()
