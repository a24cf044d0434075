"""Steps that do not depend on each other, at once: what an engine is asked at once travels to its server at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["together"]

T = TypeVar("T")


async def together(steps: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order, when all steps have ended; then the first failure is raised, if there was one."""
    steps = list(steps)
    if len(steps) == 1:  # needs no task
        return [await steps[0]]
    results = await asyncio.gather(*steps, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
