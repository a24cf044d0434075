"""Declared specs: validators are asked before anything is recorded, and their answer is what is kept."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy
import pytest

from tests.http.conftest import serving
from tiled_stream.run.settings import SettingsError
from tiled_stream.run.specs import promises_of

HERE = f"{__name__}:"
NOT_CALLABLE = 7


def sample(*, spec: Any, metadata: dict[str, Any], entry: Any, structure_family: str, structure: Any) -> dict[str, Any] | None:
    """A sample has a name; capitals in keys are made small."""
    assert spec.name == "sample"
    assert threading.current_thread() is not threading.main_thread()
    if structure_family == "array" and structure.shape != (3,):
        raise ValueError("a sample has three numbers")
    lowered = {key.lower(): value for key, value in metadata.items()}
    metadata.clear()  # an argument is theirs to spoil
    if "name" not in lowered:
        raise ValueError("a sample has a name")
    return lowered


def silent(**_: Any) -> None:
    """Takes everything."""


async def later(*, metadata: dict[str, Any], **_: Any) -> dict[str, Any]:
    await asyncio.sleep(0)
    return metadata | {"seen": [*metadata.get("seen", []), "later"]}


def sooner(*, metadata: dict[str, Any], **_: Any) -> dict[str, Any]:
    return metadata | {"seen": [*metadata.get("seen", []), "sooner"]}


def absurd(**_: Any) -> Any:
    return object()


def declared(**validators: str | None) -> dict[str, Any]:
    return {"specs": tuple({"spec": spec} | ({"validator": HERE + f} if f else {}) for spec, f in validators.items())}


def spec(name: str) -> dict[str, Any]:
    return {"name": name, "version": None}


def node(key: str, metadata: dict[str, Any], *specs: str) -> dict[str, Any]:
    return {"id": key, "structure_family": "container", "metadata": metadata, "specs": [spec(s) for s in specs]}


async def metadata_of(server: Any, path: str) -> Any:
    return (await server.ok("GET", f"/metadata/{path}"))["data"]["attributes"]["metadata"]


async def keys(server: Any) -> list[str]:
    return [n["id"] for n in (await server.ok("GET", "/search/?fields="))["data"]]


async def test_what_a_validator_returns_is_recorded_and_told() -> None:
    async with serving(**declared(sample="sample")) as server:
        reply = await server.ok("POST", "/metadata/", json=node("a", {"NAME": "x"}, "sample"))
        assert reply["metadata"] == {"name": "x"}
        assert await metadata_of(server, "a") == {"name": "x"}
        reply = await server.ok("POST", "/metadata/", json=node("b", {"name": "x"}, "sample"))
        assert "metadata" not in reply


async def test_a_refusal_says_why_and_records_nothing() -> None:
    async with serving(**declared(sample="sample")) as server:
        status, why = await server.refused("POST", "/metadata/", json=node("a", {"title": 1}, "sample"))
        assert status == 400
        assert "'sample'" in why
        assert "a sample has a name" in why
        assert await keys(server) == []
        assert (await server.client.get("/api/v1/metadata/a")).status_code == 404


async def test_structure_and_family_are_told() -> None:
    async with serving(**declared(sample="sample")) as server:
        specs = [spec("sample")]
        await server.array("good", numpy.zeros(3), metadata={"name": "x"}, specs=specs)
        with pytest.raises(AssertionError, match="three numbers"):
            await server.array("bad", numpy.zeros(4), metadata={"name": "x"}, specs=specs)
        assert await keys(server) == ["good"]


async def test_edits_are_asked_too() -> None:
    async with serving(**declared(sample="sample")) as server:
        await server.ok("POST", "/metadata/", json=node("a", {"name": "x"}, "sample"))
        status, _ = await server.refused("PUT", "/metadata/a", json={"metadata": {"title": 1}})
        assert status == 400
        patch = {"content-type": "application/merge-patch+json", "metadata": {"name": None}, "specs": None}
        status, _ = await server.refused("PATCH", "/metadata/a", json=patch)
        assert status == 400
        assert await metadata_of(server, "a") == {"name": "x"}
        assert (await server.ok("GET", "/revisions/a"))["meta"]["count"] == 0
        reply = await server.ok("PUT", "/metadata/a", json={"metadata": {"NAME": "y"}})
        assert reply["metadata"] == {"name": "y"}
        reply = await server.ok("PATCH", "/metadata/a", json=patch | {"metadata": {"More": 1}})
        assert reply["metadata"] == await metadata_of(server, "a") == {"name": "y", "more": 1}
        assert "metadata" not in await server.ok("PUT", "/metadata/a", json={"metadata": {"name": "z"}})


async def test_a_spec_that_is_added_later_is_asked_then() -> None:
    async with serving(**declared(sample="sample")) as server:
        await server.ok("POST", "/metadata/", json=node("a", {}))
        status, _ = await server.refused("PUT", "/metadata/a", json={"specs": [spec("sample")]})
        assert status == 400


async def test_the_last_spec_is_asked_first() -> None:
    async with serving(**declared(one="later", two="sooner", three=None, four="silent")) as server:
        await server.ok("POST", "/metadata/", json=node("a", {"b": 1}, "one", "two", "three", "four"))
        assert await metadata_of(server, "a") == {"b": 1, "seen": ["sooner", "later"]}


async def test_an_answer_that_is_no_metadata_is_refused() -> None:
    async with serving(**declared(one="absurd")) as server:
        status, why = await server.refused("POST", "/metadata/", json=node("a", {}, "one"))
        assert (status, "did not return metadata" in why) == (400, True)


async def test_only_declared_specs_if_so_wished() -> None:
    async with serving(**declared(one=None), reject_undeclared_specs=True) as server:
        await server.ok("POST", "/metadata/", json=node("a", {}, "one"))
        await server.ok("POST", "/metadata/", json=node("b", {}))
        status, why = await server.refused("POST", "/metadata/", json=node("c", {}, "one", "two"))
        assert (status, "'two'" in why, "one" in why) == (400, True, True)
        assert (await server.refused("PUT", "/metadata/a", json={"specs": [spec("two")]}))[0] == 400
    async with serving(**declared(one=None)) as server:
        await server.ok("POST", "/metadata/", json=node("c", {}, "one", "two"))


async def test_a_validator_that_hangs_does_not_hold_others() -> None:
    async def forever(**_: Any) -> None:
        await asyncio.Event().wait()

    from tiled_stream.domain.commands import CreateChild
    from tiled_stream.domain.errors import Unavailable
    from tiled_stream.domain.nodes import Node, Spec
    from tiled_stream.ingest.specs import Promises

    parent = Node(id="root", key="", parent=None, family="container")
    with pytest.raises(Unavailable, match="did not answer"):
        await Promises({"s": forever}, seconds=0.01).creation(parent, CreateChild("a", "container", {}, (Spec("s"),)))


async def test_validators_that_hang_leave_threads_to_others() -> None:
    from tiled_stream.domain.commands import CreateChild
    from tiled_stream.domain.errors import Unavailable
    from tiled_stream.domain.nodes import Node, Spec
    from tiled_stream.ingest.specs import Promises

    release = threading.Event()
    promises = Promises({"s": lambda **_: release.wait(30) and None}, seconds=0.1)
    parent = Node(id="root", key="", parent=None, family="container")
    command = CreateChild("a", "container", {}, (Spec("s"),))
    try:
        asked = await asyncio.gather(*(promises.creation(parent, command) for _ in range(40)), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in asked)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 1), 5) == 1
    finally:
        release.set()
        promises.close()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nothing", "not written as"),
        ("no.such.module:f", "cannot be loaded"),
        (HERE + "no_such", "cannot be loaded"),
        (HERE + "NOT_CALLABLE", "cannot be called"),
    ],
)
def test_names_that_lead_to_no_function(name: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        promises_of([{"spec": "s", "validator": name}], strict=False)
