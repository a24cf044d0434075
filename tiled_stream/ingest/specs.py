"""Promises kept: what the operator's validators say of the metadata and structure that come with a spec.

A validator is any function `f(*, spec, metadata, entry, structure_family, structure)`. It returns None, or the metadata as they
should be; whatever it raises is a refusal. It may be async; a plain one runs in a thread. Must stay true: validators are asked
before the event is made (I10), and their answer is what is recorded, on creation as on every edit.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec

from ..domain.commands import CreateChild
from ..domain.errors import Unavailable, Unsatisfiable
from ..domain.events import ChildMetadataUpdated
from ..domain.nodes import Node, Spec
from ..domain.structures import Family, Structure
from ..wire.client_json import check_depth

__all__ = ["Promises", "Validator"]

logger = logging.getLogger(__name__)

Validator = Callable[..., Any]
#: What a validator says may be long; a client needs the beginning.
_SAID = 1000
#: Validators that run at once.
_THREADS = 4


class Promises:
    """`validators` by the name of a spec, None for one that is only declared. `strict`: no spec that is not declared.

    `seconds` is how long one validator may take: the lock of the parent's log is held meanwhile on edits.
    """

    def __init__(self, validators: Mapping[str, Validator | None], *, strict: bool = False, seconds: float = 30.0) -> None:
        self._validators = validators
        self._strict = strict
        self._seconds = seconds
        # Threads of their own: validators that hang would else use up those in which everything is decoded.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="validator")

    def close(self) -> None:
        """Leave no thread but one that hangs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def creation(self, parent: Node, command: CreateChild) -> CreateChild:
        """The command with the metadata that the validators want. `Unsatisfiable` if one of them refuses."""
        structure = command.data_sources[0].structure if command.data_sources else None
        metadata = await self._kept(command.specs, command.metadata, parent, command.family, structure)
        return command if metadata is command.metadata else msgspec.structs.replace(command, metadata=metadata)

    async def edit(self, node: Node, event: ChildMetadataUpdated) -> ChildMetadataUpdated:
        """The event with the metadata that the validators want. `Unsatisfiable` if one of them refuses."""
        metadata = await self._kept(event.specs, event.metadata, node, node.family, node.structure)
        return event if metadata is event.metadata else msgspec.structs.replace(event, metadata=metadata)

    async def _kept(
        self, specs: Sequence[Spec], metadata: dict[str, Any], entry: Node, family: Family, structure: Structure | None
    ) -> dict[str, Any]:
        """From the last spec, which promises least, to the first: what one has tidied up the next one sees."""
        for spec in reversed(specs):
            if spec.name not in self._validators:
                if self._strict:
                    known = ", ".join(sorted(self._validators)) or "none"
                    raise Unsatisfiable(f"The spec {spec.name!r} is not declared on this server; declared are: {known}.")
                continue
            validator = self._validators[spec.name]
            if validator is not None:
                # A copy: what a validator does to its argument and does not return must not be recorded.
                given = copy.deepcopy(metadata)
                changed = await self._asked(validator, spec, given, entry=entry, family=family, structure=structure)
                metadata = metadata if changed is None else changed
        return metadata

    async def _asked(
        self,
        validator: Validator,
        spec: Spec,
        metadata: dict[str, Any],
        *,
        entry: Node,
        family: Family,
        structure: Structure | None,
    ) -> dict[str, Any] | None:
        arguments = {"spec": spec, "metadata": metadata, "entry": entry, "structure_family": family, "structure": structure}
        try:
            async with asyncio.timeout(self._seconds):
                if inspect.iscoroutinefunction(validator):
                    answer = await validator(**arguments)
                else:
                    call = partial(validator, **arguments)
                    answer = await asyncio.get_running_loop().run_in_executor(self._threads, call)
                    answer = await answer if inspect.isawaitable(answer) else answer
        except TimeoutError:
            raise Unavailable(f"The validator of the spec {spec.name!r} did not answer in {self._seconds:g} s.") from None
        except Exception as error:  # whatever an operator's code raises is its way to say no
            logger.info("The validator of the spec %r refused", spec.name, exc_info=error)
            said = str(error)[:_SAID] or type(error).__name__
            raise Unsatisfiable(f"The validator of the spec {spec.name!r} refused this: {said}") from None
        return None if answer is None else _metadata(spec, answer)


def _metadata(spec: Spec, answer: Any) -> dict[str, Any]:
    """What a validator returned, if the log can hold it."""
    try:
        metadata = msgspec.json.decode(msgspec.json.encode(answer), type=dict[str, Any])
    except (msgspec.ValidationError, TypeError, ValueError, RecursionError):
        raise Unsatisfiable(
            f"The validator of the spec {spec.name!r} did not return metadata, an object of plain values."
        ) from None
    check_depth(metadata, "The metadata")
    return metadata
