"""A stored Bluesky run as the documents it was made from. Pure: what was read goes in, documents come out.

The writer keeps the start and stop documents in the run's metadata, each stream's first descriptor in the stream's metadata
(later ones as changes under `_config_updates`), scalar readings in tables, large ones in arrays, row by row. Metadata are
whatever a client wrote: nothing here may fail on what is missing or of another kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import inf
from typing import Any

import msgspec

__all__ = ["Document", "StreamContent", "documents"]

Document = tuple[str, dict[str, Any]]

#: At the same time (or none), what is referred to comes before what refers to it.
_ORDER = {"descriptor": 0, "event": 1, "stream_resource": 2, "stream_datum": 3}


class StreamContent(msgspec.Struct, frozen=True):
    """One stream: its metadata; columns of its tables and its arrays (name → values, one a row); external nodes.

    `externals`: data key → its data source as on the wire.
    """

    name: str
    metadata: dict[str, Any]
    columns: Mapping[str, Sequence[Any]] = {}
    arrays: Mapping[str, Sequence[Any]] = {}
    externals: Mapping[str, dict[str, Any]] = {}


def documents(metadata: dict[str, Any], streams: Sequence[StreamContent]) -> Iterator[Document]:
    """Start; everything between by time, what has none last; stop, if the run has ended."""
    start = _object(metadata.get("start"))
    yield "start", start
    between = [document for stream in streams for document in _of_stream(stream, start.get("uid"))]
    yield from sorted(between, key=lambda d: (_number(d[1].get("time"), inf), _ORDER[d[0]]))
    stop = _object(metadata.get("stop"))
    if stop:
        yield "stop", stop


def _of_stream(stream: StreamContent, run: str | None) -> Iterator[Document]:
    descriptors = list(_descriptors(stream, run))
    for descriptor in descriptors:
        yield "descriptor", descriptor
    for event in _events(stream, descriptors):
        yield "event", event
    for key, source in stream.externals.items():
        yield from _external(key, source, descriptors[0], run)


def _descriptors(stream: StreamContent, run: str | None) -> Iterator[dict[str, Any]]:
    """The first one as it was stored, then one for each change of the configuration, each based on the one before."""
    keys: dict[str, list[str]] = {}
    for key, value in _object(stream.metadata.get("data_keys")).items():
        name = _object(value).get("object_name")
        if isinstance(name, str):
            keys.setdefault(name, []).append(key)
    descriptor = {k: v for k, v in stream.metadata.items() if k not in ("_config_updates", "stream_name")}
    descriptor |= {"name": stream.name, "run_start": run, "object_keys": keys}
    yield descriptor
    for update in _objects(stream.metadata.get("_config_updates")):
        descriptor = {**descriptor, **{k: update[k] for k in ("uid", "time") if k in update}}
        descriptor["configuration"] = _configured(_object(descriptor.get("configuration")), _object(update.get("configuration")))
        yield descriptor


def _configured(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Values and times of devices that said something new; what they did not mention stays."""
    result = dict(old)
    for device, said in new.items():
        before = _object(old.get(device))
        result[device] = {
            **_object(said),
            **before,
            "data": {**_object(before.get("data")), **_object(_object(said).get("data"))},
            "timestamps": {**_object(before.get("timestamps")), **_object(_object(said).get("timestamps"))},
        }
    return result


def _events(stream: StreamContent, descriptors: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    columns = stream.columns
    keys = _object(stream.metadata.get("data_keys"))
    stamps = {k.removeprefix("ts_"): v for k, v in columns.items() if k.startswith("ts_") and k not in keys}
    hidden = {"seq_num", "time", *(f"ts_{k}" for k in stamps)}
    data = {k: v for k, v in columns.items() if k not in hidden} | dict(stream.arrays)
    numbers = columns.get("seq_num") or range(1, 1 + max(map(len, stream.arrays.values()), default=0))
    times = columns.get("time") or [0.0] * len(numbers)
    for row, (number, time) in enumerate(zip(numbers, times, strict=False)):
        uid = _in_force(descriptors, time).get("uid")
        values = {k: v[row] for k, v in data.items() if row < len(v)}
        yield {
            "seq_num": number,
            "time": time,
            "uid": f"event-{uid}-{number}",
            "descriptor": uid,
            "data": values,
            "timestamps": {k: stamps[k][row] if k in stamps and row < len(stamps[k]) else time for k in values},
        }


def _in_force(descriptors: Sequence[dict[str, Any]], time: Any) -> dict[str, Any]:
    """The last descriptor that is not younger than the event."""
    found = descriptors[0]
    for descriptor in descriptors[1:]:
        if _number(descriptor.get("time"), inf) <= _number(time, -inf):
            found = descriptor
    return found


def _external(key: str, source: dict[str, Any], descriptor: dict[str, Any], run: str | None) -> Iterator[Document]:
    """One resource for all files, and one datum for all their frames."""
    shape = list(_object(source.get("structure")).get("shape") or [])
    datum = _object(_object(descriptor.get("data_keys")).get(key)).get("shape")
    frame = list(datum) if isinstance(datum, list | tuple) else []
    is_stacked = len(shape) == len(frame) + 1
    uid = descriptor.get("uid")
    uri, template = _place(source.get("assets") or [])
    parameters = {**_object(source.get("parameters"))}
    parameters.setdefault("join_method", "stack" if is_stacked else "concat")
    first = 0
    if template is not None and "template" not in parameters:
        parameters["template"], number = template
        parameters.setdefault("chunk_shape", [1])
        first = number // _per_datum(frame)
    rows = (shape[0] if is_stacked else shape[0] // _per_datum(frame)) if shape else 0
    resource = f"sr-{uid}-{key}"
    yield (
        "stream_resource",
        {
            "data_key": key,
            "uid": resource,
            "run_start": run,
            "mimetype": source.get("mimetype"),
            "parameters": parameters,
            "uri": uri,
        },
    )
    yield (
        "stream_datum",
        {
            "uid": f"sd-{uid}-{key}-0",
            "stream_resource": resource,
            "descriptor": uid,
            "indices": {"start": first, "stop": first + rows},
            "seq_nums": {"start": first + 1, "stop": first + rows + 1},
        },
    )


def _per_datum(frame: list[Any]) -> int:
    """Frames along the first axis of one datum, at least one."""
    return max(1, int(_number(frame[0], 1))) if frame else 1


def _place(assets: Sequence[dict[str, Any]]) -> tuple[str | None, tuple[str, int] | None]:
    """URI of a resource; for numbered files their directory, the pattern of their names and the first number."""
    uris = [a["data_uri"] for a in sorted(assets, key=lambda a: a.get("num") or 0)]
    if len(uris) < 2:
        return (uris[0] if uris else None), None
    directory = uris[0][: uris[0].rfind("/") + 1]
    name = uris[0][len(directory) :]
    # The number is what differs: the last run of digits that makes all names by counting on.
    found = next((m for m in _numbers(name) if _counts(uris, directory, name, *m)), None)
    if found is None:
        return uris[0], None
    begin, end = found
    pattern = f"{_literal(name[:begin])}%0{end - begin}d{_literal(name[end:])}"
    return directory, (pattern, int(name[begin:end]))


def _numbers(name: str) -> Iterator[tuple[int, int]]:
    """Where the digits of a name stand."""
    at = 0
    for is_digit, run in groupby(name, str.isdigit):
        length = len(list(run))
        if is_digit:
            yield at, at + length
        at += length


def _counts(uris: Sequence[str], directory: str, name: str, begin: int, end: int) -> bool:
    first, width = int(name[begin:end]), end - begin
    return all(u == f"{directory}{name[:begin]}{first + i:0{width}d}{name[end:]}" for i, u in enumerate(uris))


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, int | float) and value == value else otherwise
