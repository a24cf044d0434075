"""The documents of a run from what is stored of it. The judge is the writer's side: what it was given."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.http.bluesky_documents import StreamContent, documents

START = {"uid": "run", "time": 1.0}
STOP = {"uid": "end", "run_start": "run", "time": 9.0}


def stream(**fields: Any) -> StreamContent:
    metadata = {
        "uid": "d1",
        "time": 2.0,
        "data_keys": {"det": {"object_name": "dev"}, "img": {"object_name": "dev"}, "motor": {"object_name": "m"}},
        "configuration": {"dev": {"data": {"gain": 1, "mode": "a"}, "timestamps": {"gain": 0.1, "mode": 0.2}, "data_keys": {}}},
    }
    columns = {"seq_num": [1, 2], "time": [3.0, 5.0], "det": [0.5, 0.6], "ts_det": [3.1, 5.1], "ts_img": [3.2, 5.2]}
    return StreamContent(
        name=fields.get("name", "primary"),
        metadata=metadata | fields.get("metadata", {}),
        columns=fields.get("columns", columns),
        arrays=fields.get("arrays", {"img": [[1, 2], [3, 4]]}),
        externals=fields.get("externals", {}),
    )


def names(found: list[Any]) -> list[str]:
    return [name for name, _ in found]


def test_a_run_begins_with_start_and_ends_with_stop() -> None:
    found = list(documents({"start": START, "stop": STOP}, [stream()]))
    assert names(found) == ["start", "descriptor", "event", "event", "stop"]
    assert (found[0][1], found[-1][1]) == (START, STOP)


def test_a_run_that_goes_on_has_no_stop() -> None:
    assert names(list(documents({"start": START}, []))) == ["start"]


def test_events_have_values_and_times_of_tables_and_arrays() -> None:
    _, (_, descriptor), (_, first), (_, second) = documents({"start": START}, [stream()])
    assert descriptor["name"] == "primary"
    assert descriptor["run_start"] == "run"
    assert descriptor["object_keys"] == {"dev": ["det", "img"], "m": ["motor"]}
    assert first == {
        "uid": "event-d1-1",
        "descriptor": "d1",
        "seq_num": 1,
        "time": 3.0,
        "data": {"det": 0.5, "img": [1, 2]},
        "timestamps": {"det": 3.1, "img": 3.2},
    }
    assert second["data"] == {"det": 0.6, "img": [3, 4]}


def test_an_array_whose_last_rows_have_not_come_yet() -> None:
    found = list(documents({"start": START}, [stream(arrays={"img": [[1, 2]]})]))
    assert found[3][1]["data"] == {"det": 0.6}


def test_arrays_alone_make_events() -> None:
    found = list(documents({"start": START}, [stream(columns={})]))
    assert [d["data"] for n, d in found if n == "event"] == [{"img": [1, 2]}, {"img": [3, 4]}]


def test_a_changed_configuration_is_a_descriptor_that_later_events_refer_to() -> None:
    update = {"uid": "d2", "time": 4.0, "configuration": {"dev": {"data": {"gain": 2}, "timestamps": {"gain": 4.0}}}}
    found = list(documents({"start": START}, [stream(metadata={"_config_updates": [update]})]))
    assert [(n, d["uid"]) for n, d in found[1:]] == [
        ("descriptor", "d1"),
        ("event", "event-d1-1"),
        ("descriptor", "d2"),
        ("event", "event-d2-2"),
    ]
    first, second = found[1][1], found[3][1]
    assert first["configuration"]["dev"]["data"] == {"gain": 1, "mode": "a"}
    assert second["configuration"]["dev"]["data"] == {"gain": 2, "mode": "a"}
    assert second["configuration"]["dev"]["timestamps"] == {"gain": 4.0, "mode": 0.2}
    assert second["configuration"]["dev"]["data_keys"] == {}
    assert "_config_updates" not in first


def test_streams_are_interleaved_by_time() -> None:
    other = stream(name="b", columns={"seq_num": [1], "time": [4.0]}, arrays={}, metadata={"uid": "e1", "time": 3.5})
    found = list(documents({"start": START}, [stream(), other]))
    assert [d["time"] for _, d in found] == [1.0, 2.0, 3.0, 3.5, 4.0, 5.0]


def external(shape: list[int], uris: list[str], **parameters: Any) -> dict[str, Any]:
    assets = [{"data_uri": u, "num": n} for n, u in enumerate(uris)]
    return {"mimetype": "m", "parameters": parameters, "structure": {"shape": shape}, "assets": assets[::-1]}


def of_external(source: dict[str, Any], frame: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    keys = {"img": {"shape": frame, "external": "STREAM:"}}
    content = stream(metadata={"data_keys": keys}, columns={}, arrays={}, externals={"img": source})
    found = list(documents({"start": START}, [content]))
    assert names(found) == ["start", "descriptor", "stream_resource", "stream_datum"]
    return found[2][1], found[3][1]


@pytest.mark.parametrize(
    ("shape", "frame", "method", "frames"),
    [([5, 3, 4], [3, 4], "stack", 5), ([6, 4], [2, 4], "concat", 3), ([5], [], "stack", 5)],
)
def test_one_file_is_one_resource_with_one_datum(shape: list[int], frame: list[int], method: str, frames: int) -> None:
    resource, datum = of_external(external(shape, ["file:///d/x.h5"], dataset="/e"), frame)
    assert resource == {
        "data_key": "img",
        "uid": "sr-d1-img",
        "run_start": "run",
        "mimetype": "m",
        "parameters": {"dataset": "/e", "join_method": method},
        "uri": "file:///d/x.h5",
    }
    assert datum["stream_resource"] == resource["uid"]
    assert datum["indices"] == {"start": 0, "stop": frames}
    assert datum["seq_nums"] == {"start": 1, "stop": frames + 1}


def test_numbered_files_are_a_template() -> None:
    uris = [f"file:///d1/a100%_{n:04d}.tif" for n in (3, 4, 5)]
    resource, datum = of_external(external([3, 1, 5], uris), [1, 5])
    assert resource["uri"] == "file:///d1/"
    template = resource["parameters"]["template"]
    assert ["file:///d1/" + template % n for n in (3, 4, 5)] == uris
    assert datum["indices"] == {"start": 3, "stop": 6}


def test_files_without_a_rule_are_told_by_the_first() -> None:
    resource, _ = of_external(external([2, 1, 5], ["file:///d/b.tif", "file:///e/a.tif"]), [1, 5])
    assert resource["uri"] == "file:///d/b.tif"
    assert "template" not in resource["parameters"]


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
names_of_metadata = st.sampled_from(["start", "stop", "uid", "time", "data_keys", "configuration", "_config_updates", "name"])
columns = st.dictionaries(st.sampled_from(["seq_num", "time", "a", "ts_a", "ts_b"]), st.lists(anything, max_size=3))


@given(metadata=st.dictionaries(names_of_metadata, anything), columns=columns, arrays=columns, source=anything)
def test_whatever_a_client_wrote_there_are_documents(metadata: Any, columns: Any, arrays: Any, source: Any) -> None:
    shape = {"mimetype": "m", "structure": {"shape": [4, 2]}, "assets": [], "parameters": source}
    content = StreamContent("s", metadata, columns, arrays, {"k": shape})
    assert names(list(documents(metadata, [content])))[0] == "start"
