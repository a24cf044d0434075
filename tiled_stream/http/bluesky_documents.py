"""A stored Bluesky run as the documents it was made from. Pure: what was read goes in, documents come out.

The writer keeps the start and stop documents in the run's metadata, each stream's first descriptor in the stream's metadata
(later ones under `_config_updates`), scalar readings in a table, large ones in arrays, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["Document", "StreamContent", "documents"]

Document = tuple[str, dict[str, Any]]


class StreamContent(msgspec.Struct, frozen=True):
    """One stream: its metadata; columns of its tables (name → values by row); arrays (name → values by row); external nodes.

    `externals`: key → (data source as on the wire, metadata).
    """

    name: str
    metadata: dict[str, Any]
    columns: Mapping[str, Sequence[Any]]
    arrays: Mapping[str, Sequence[Any]]
    externals: Mapping[str, dict[str, Any]] = {}


def documents(metadata: dict[str, Any], streams: Sequence[StreamContent]) -> Iterator[Document]:
    """Start; everything between by time, what has none last; stop."""
    start = metadata.get("start", {})
    yield "start", start
    between = [document for stream in streams for document in _of_stream(stream, start.get("uid"))]
    yield from sorted(between, key=lambda d: d[1].get("time") or float("inf"))
    if metadata.get("stop"):
        yield "stop", metadata["stop"]


def _of_stream(stream: StreamContent, run: str | None) -> Iterator[Document]:
    descriptors = list(_descriptors(stream, run))
    for descriptor in descriptors:
        yield "descriptor", descriptor
    yield from (("event", event) for event in _events(stream, descriptors))
    for key, source in stream.externals.items():
        yield from _resource(key, source, descriptors, run)


def _descriptors(stream: StreamContent, run: str | None) -> Iterator[dict[str, Any]]:
    base = {k: v for k, v in stream.metadata.items() if k != "_config_updates"}
    keys: dict[str, list[str]] = {}
    for key, value in base.get("data_keys", {}).items():
        if isinstance(value, dict) and value.get("object_name"):
            keys.setdefault(value["object_name"], []).append(key)
    first = {**base, "name": stream.name, "run_start": run, "object_keys": keys}
    yield first
    for update in stream.metadata.get("_config_updates", []):
        configuration = {**first.get("configuration", {}), **update.get("configuration", {})}
        yield {**first, **update, "configuration": configuration}


def _events(stream: StreamContent, descriptors: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    numbers, times = stream.columns.get("seq_num", ()), stream.columns.get("time", ())
    stamps = {name.removeprefix("ts_"): values for name, values in stream.columns.items() if name.startswith("ts_")}
    data = {k: v for k, v in stream.columns.items() if k not in ("seq_num", "time") and k.removeprefix("ts_") not in stamps}
    data |= {k: v for k, v in stream.columns.items() if k in stamps}
    data |= stream.arrays
    for row, (number, time) in enumerate(zip(numbers, times, strict=True)):
        descriptor = [d for d in descriptors if (d.get("time") or 0) <= time] or descriptors[:1]
        uid = descriptor[-1].get("uid")
        yield {
            "uid": f"event-{uid}-{number}",
            "descriptor": uid,
            "time": time,
            "seq_num": number,
            "data": {key: values[row] for key, values in data.items() if row < len(values)},
            "timestamps": {key: values[row] for key, values in stamps.items()},
            "filled": {},
        }


def _resource(key: str, source: dict[str, Any], descriptors: list[dict[str, Any]], run: str | None) -> Iterator[Document]:
    """One stream_resource a file, and one stream_datum for all of its frames."""
    assets = source["assets"]
    rows = source["structure"]["shape"][0] if source.get("structure") else 0
    for number, asset in enumerate(assets[:1]):
        uid = f"sr-{descriptors[0].get('uid')}-{key}-{number}"
        yield (
            "stream_resource",
            {
                "uid": uid,
                "data_key": key,
                "mimetype": source["mimetype"],
                "uri": asset["data_uri"],
                "parameters": source["parameters"],
                "run_start": run,
            },
        )
        yield (
            "stream_datum",
            {
                "uid": f"{uid}/0",
                "stream_resource": uid,
                "descriptor": descriptors[0].get("uid"),
                "indices": {"start": 0, "stop": rows},
                "seq_nums": {"start": 1, "stop": rows + 1},
            },
        )
