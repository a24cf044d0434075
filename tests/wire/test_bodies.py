"""Bodies of requests: commands come out, or a refusal that names the key."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.domain.commands import PatchMetadata, ReplaceMetadata
from tiled_stream.domain.errors import Malformed, NotAcceptable, Refused, Unsatisfiable
from tiled_stream.domain.nodes import Asset, Spec
from tiled_stream.domain.structures import ArrayStructure, TableStructure
from tiled_stream.wire.bodies import parse_create, parse_data_source, parse_patch, parse_replace
from tiled_stream.wire.tables import structure_of

U2 = {"endianness": "little", "kind": "u", "itemsize": 2, "dt_units": None}
ARRAY = {"data_type": U2, "chunks": [[0], [1], [3, 1], [3]], "shape": [0, 1, 4, 3], "dims": None, "resizable": False}
SCHEMA = structure_of(pyarrow.schema([("seq_num", pyarrow.int64()), ("time", pyarrow.float64())])).arrow_schema
TABLE = {"arrow_schema": SCHEMA, "npartitions": 1, "columns": ["seq_num", "time"], "resizable": False}
ASSET = {"data_uri": "file://localhost/x.h5", "is_directory": False, "parameter": "data_uris", "num": 0, "id": None, "size": None}
EXTERNAL = {
    "structure_family": "array",
    "structure": ARRAY,
    "id": None,
    "mimetype": "application/x-hdf5",
    "parameters": {"dataset": "/entry/data/data", "swmr": False, "locking": None},
    "properties": {},
    "assets": [ASSET],
    "management": "external",
}
REGISTER = {
    "ancestors": ["tw", "uid", "primary"],
    "metadata": {},
    "structure_family": "array",
    "specs": [],
    "access_tags": None,
    "id": "img",
    "data_sources": [EXTERNAL],
}
CREATE_TABLE = {
    "id": "internal",
    "structure_family": "table",
    "metadata": {"det": {"dtype": "number"}},
    "specs": [],
    "access_tags": None,
    "data_sources": [
        {
            "structure_family": "table",
            "structure": TABLE,
            "id": None,
            "mimetype": "application/x-tiled-sql-table",
            "parameters": {},
            "properties": {},
            "assets": [],
            "management": "writable",
        }
    ],
}
CONTAINER = {"structure_family": "container", "metadata": {"a": 1}}


def dump(value: Any) -> bytes:
    return orjson.dumps(value)


def source(**changes: Any) -> dict[str, Any]:
    """A registration whose data source differs."""
    return REGISTER | {"data_sources": [EXTERNAL | changes]}


def assets(*changes: dict[str, Any]) -> dict[str, Any]:
    return source(assets=[ASSET | change for change in changes])


class TestCreate:
    """POST metadata, POST register."""

    def test_registration_of_files(self) -> None:
        command = parse_create(dump(REGISTER), True)
        (found,) = command.data_sources
        assert (command.key, command.family, command.registered) == ("img", "array", True)
        assert isinstance(found.structure, ArrayStructure)
        assert found.structure.shape == (0, 1, 4, 3)
        assert (found.mimetype, found.management, found.id) == ("application/x-hdf5", "external", None)
        assert found.parameters == EXTERNAL["parameters"]
        assert found.assets == (Asset("file://localhost/x.h5", False, "data_uris", 0),)

    def test_a_table(self) -> None:
        command = parse_create(dump(CREATE_TABLE), False)
        assert isinstance(command.data_sources[0].structure, TableStructure)
        assert command.data_sources[0].structure.columns == ("seq_num", "time")
        assert command.metadata == CREATE_TABLE["metadata"]
        assert not command.registered

    def test_a_container_with_little(self) -> None:
        command = parse_create(dump({"structure_family": "container"}), False)
        assert (command.key, command.metadata, command.specs, command.access_tags) == (None, {}, (), None)

    def test_nulls_are_defaults(self) -> None:
        nulls = dict.fromkeys(("id", "metadata", "specs", "access_tags", "access_blob", "data_sources"))
        assert parse_create(dump(CONTAINER | nulls), False) == parse_create(b'{"structure_family":"container"}', False)

    @pytest.mark.parametrize("key", ["", None])
    def test_no_key(self, key: str | None) -> None:
        assert parse_create(dump(CONTAINER | {"id": key}), False).key is None

    @pytest.mark.parametrize("key", ["a b", "ü", "a.b", "...", "-", "%2F", "x" * 255])
    def test_good_keys(self, key: str) -> None:
        assert parse_create(dump(CONTAINER | {"id": key}), False).key == key

    @pytest.mark.parametrize("key", ["a/b", "/", ".", "..", "a\0b", 5, ["a"], "x" * 1025, "ü" * 600])
    def test_wrong_keys(self, key: Any) -> None:
        with pytest.raises(Malformed):
            parse_create(dump(CONTAINER | {"id": key}), False)

    def test_specs_keep_their_order(self) -> None:
        wire = [{"name": "b", "version": "3.0", "more": 1}, {"name": "a", "version": None}, {"name": "c"}]
        assert parse_create(dump(CONTAINER | {"specs": wire}), False).specs == (Spec("b", "3.0"), Spec("a"), Spec("c"))

    @pytest.mark.parametrize(
        "specs",
        [
            "x",
            {},
            0,
            ["x"],
            [{}],
            [{"name": 1}],
            [{"name": "a", "version": 3}],
            [{"name": "a"}] * 2,
            [{"name": "a" * 256}],
            [{"name": "a", "version": "1" * 256}],
            [{"name": str(n)} for n in range(21)],
        ],
    )
    def test_wrong_specs(self, specs: Any) -> None:
        for parse in (lambda body: parse_create(body, False), lambda body: parse_replace(body, False)):
            with pytest.raises(Malformed):
                parse(dump(CONTAINER | {"specs": specs}))

    @pytest.mark.parametrize(
        ("wire", "tags"),
        [({"access_tags": ["a"]}, ("a",)), ({"access_blob": {"tags": ["b"]}}, ("b",)), ({"access_blob": {}}, None)],
    )
    def test_tags(self, wire: dict[str, Any], tags: tuple[str, ...] | None) -> None:
        assert parse_create(dump(CONTAINER | wire), False).access_tags == tags

    @pytest.mark.parametrize("mimetype", [None, "text/csv"])
    def test_external_files_may_come_later(self, mimetype: str | None) -> None:
        (found,) = parse_create(dump(source(assets=[], mimetype=mimetype)), False).data_sources
        assert (found.assets, found.management, found.mimetype) == ((), "external", mimetype)

    def test_many_files(self) -> None:
        found = parse_create(dump(assets(*({"num": n, "data_uri": f"file:///{n}"} for n in range(1000)))), True)
        assert [a.num for a in found.data_sources[0].assets] == list(range(1000))

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({}, "structure_family"),
            ({"structure_family": "composite"}, "structure_family"),
            ({"structure_family": ["array"]}, "structure_family"),
            (CONTAINER | {"metadata": [1]}, "metadata"),
            (CONTAINER | {"data_sources": {}}, "data_sources"),
            (CONTAINER | {"access_tags": "x"}, "access_tags"),
            (CONTAINER | {"access_tags": [1]}, "access_tags"),
            (CONTAINER | {"access_blob": [1]}, "access_blob"),
            (REGISTER | {"data_sources": []}, "exactly one"),
            (REGISTER | {"data_sources": [EXTERNAL] * 2}, "exactly one"),
            (REGISTER | {"data_sources": [7]}, "data_sources"),
            (REGISTER | {"structure_family": "table"}, "family"),
            (source(structure_family="table"), "family"),
            (source(chunks=[1]), "chunks"),
            (source(structure=None), "structure"),
            (source(structure=ARRAY | {"shape": [1, 1, 4, 3]}), "Axis 0"),
            (source(structure=ARRAY | {"data_type": U2 | {"kind": "O"}}), "objects"),
            (source(management="mine"), "management"),
            (source(management=""), "management"),
            (source(mimetype=5), "mimetype"),
            (source(parameters=[]), "parameters"),
            (source(properties="x"), "properties"),
            (source(assets="x"), "assets"),
            (source(id="5"), "id"),
            (source(id=True), "id"),
            (source(assets=[5]), "assets"),
            (source(assets=[{"is_directory": False}]), "data_uri"),
            (assets({"is_directory": "no"}), "is_directory"),
            (assets({}, {}), "num"),
            (assets({"num": None}, {"num": 1}), "num"),
            (assets({"num": None}, {"num": None}), "num"),
            (assets({"num": -1}), "num"),
        ],
    )
    def test_faults_are_named(self, wrong: Any, named: str) -> None:
        with pytest.raises(Malformed, match=named):
            parse_create(dump(wrong), True)

    def test_columns_that_are_kept_for_the_server(self) -> None:
        schema = structure_of(pyarrow.schema([("_x", pyarrow.int64())])).arrow_schema
        table = TABLE | {"arrow_schema": schema, "columns": ["_x"]}
        body = CREATE_TABLE | {"data_sources": [CREATE_TABLE["data_sources"][0] | {"structure": table}]}
        with pytest.raises(Malformed, match="_x"):
            parse_create(dump(body), False)

    def test_a_structure_of_another_family(self) -> None:
        ragged = {"structure_family": "ragged", "structure": {}}
        with pytest.raises(Malformed, match="data_type"):
            parse_create(dump({"structure_family": "ragged", "data_sources": [ragged]}), False)

    def test_metadata_too_deep_to_be_told_again(self) -> None:
        body = b'{"structure_family":"container","metadata":{"a":' + b"[" * 200 + b"]" * 200 + b"}}"
        with pytest.raises(Malformed, match="deep"):
            parse_create(body, False)


class TestEdits:
    """PUT and PATCH of metadata."""

    def test_replacement(self) -> None:
        body = dump({"metadata": {"a": 1}, "specs": [], "access_tags": ["t"]})
        assert parse_replace(body, True) == ReplaceMetadata({"a": 1}, (), ("t",), True)

    @pytest.mark.parametrize("body", [b"{}", b'{"metadata":null,"specs":null,"access_tags":null}'])
    def test_nothing_is_replaced_by_nothing(self, body: bytes) -> None:
        assert parse_replace(body, False) == ReplaceMetadata(None)

    @pytest.mark.parametrize("wrong", [{"metadata": []}, {"metadata": "x"}, {"specs": 1}, {"access_tags": {}}])
    def test_wrong_replacements(self, wrong: Any) -> None:
        with pytest.raises(Malformed):
            parse_replace(dump(wrong), False)

    def test_json_patch(self) -> None:
        operations = [{"op": "add", "path": "/stop", "value": {"uid": "x"}}]
        body = {"content-type": "application/json-patch+json", "metadata": operations, "specs": None, "access_tags": None}
        assert parse_patch(dump(body), True) == PatchMetadata("json-patch", operations, drop_revision=True)

    def test_merge_patch(self) -> None:
        body = {"content-type": "application/merge-patch+json", "metadata": {"e": None}, "specs": []}
        assert parse_patch(dump(body), False) == PatchMetadata("merge-patch", {"e": None}, [])

    @pytest.mark.parametrize("missing", ["content-type", "specs"])
    def test_mandatory_keys(self, missing: str) -> None:
        body = {"content-type": "application/merge-patch+json", "specs": None}
        del body[missing]
        with pytest.raises(Malformed, match=missing):
            parse_patch(dump(body), False)

    @pytest.mark.parametrize("kind", ["application/json", None, 5, "json-patch"])
    def test_other_kinds_of_patch(self, kind: Any) -> None:
        with pytest.raises(NotAcceptable, match="merge-patch"):
            parse_patch(dump({"content-type": kind, "specs": None}), False)


class TestDataSource:
    """PUT data_source."""

    BODY = dump({"data_source": EXTERNAL | {"id": 41}})

    def test_whole(self) -> None:
        command = parse_data_source(self.BODY, "2,4,5", "1")
        assert (command.data_source.id, command.shape, command.offset) == (41, (2, 4, 5), (1,))
        assert parse_data_source(self.BODY, "scalar", "").shape == ()
        assert parse_data_source(self.BODY, None, None).shape is None

    @pytest.mark.parametrize(("shape", "offset"), [("1", None), (None, "0")])
    def test_both_or_neither(self, shape: str | None, offset: str | None) -> None:
        with pytest.raises(Unsatisfiable):
            parse_data_source(self.BODY, shape, offset)

    @pytest.mark.parametrize(("shape", "offset"), [("x", "0"), ("1", "-1"), ("1,", "0")])
    def test_texts_that_are_no_numbers(self, shape: str, offset: str) -> None:
        with pytest.raises(Malformed):
            parse_data_source(self.BODY, shape, offset)

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"data_source": None},
            {"data_source": [EXTERNAL]},
            {"data_source": EXTERNAL},
            {"data_source": EXTERNAL | {"id": "41"}},
            {"data_source": EXTERNAL | {"id": True}},
            {"data_source": EXTERNAL | {"id": 41, "extra": 1}},
            {"data_source": {"id": 41}},
            {"data_source": EXTERNAL | {"id": 41, "structure_family": "nonsense"}},
        ],
    )
    def test_faults(self, wrong: Any) -> None:
        with pytest.raises(Malformed):
            parse_data_source(dump(wrong), None, None)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    *([key] for key in REGISTER),
    *(["data_sources", 0, key] for key in EXTERNAL),
    *(["data_sources", 0, "structure", key] for key in ARRAY),
    *(["data_sources", 0, "structure", "data_type", key] for key in U2),
    *(["data_sources", 0, "assets", 0, key] for key in ASSET),
]


@given(st.sampled_from(PLACES), JSON)
def test_anything_in_any_place_is_refused_or_understood(place: list[Any], value: Any) -> None:
    body = json.loads(json.dumps(REGISTER))
    inner = body
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    try:
        command = parse_create(dump(body), True)
    except Refused:
        return
    assert command.registered


@given(st.binary(max_size=40))
def test_any_body_is_refused_or_understood(body: bytes) -> None:
    for parse in (
        lambda: parse_create(body, False),
        lambda: parse_replace(body, False),
        lambda: parse_patch(body, False),
        lambda: parse_data_source(body, None, None),
    ):
        with contextlib.suppress(Refused):
            assert parse() is not None
