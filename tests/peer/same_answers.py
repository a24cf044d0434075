"""The same scan written to two servers, the same questions put to both: where do the answers differ?

    python tests/peer/same_answers.py --ours http://127.0.0.1:8000/api/v1 --peer http://127.0.0.1:8001/api/v1 --api-key secret

Both must be empty, writable, and able to read `--readable DIRECTORY`. The stock client and writer write; the questions are plain
requests, so that nothing of a client hides a difference. Every kind of difference is printed once, with a question that shows it;
those that are meant stand in `MEANT`, each with its reason, and are counted apart. Exit code 1 if another is left.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import httpx
import msgspec
import numpy
import pandas
import pyarrow
import pyarrow.parquet
import tifffile
from bluesky import RunEngine
from bluesky.plans import grid_scan, scan
from bluesky_tiled_plugins import TiledWriter
from ophyd.sim import det1, det2, motor1, motor2
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tiled.client import from_uri

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.file"

#: What differs on purpose: (pattern of the question, pattern of the difference, why).
MEANT: list[tuple[str, str, str]] = [
    (r"/array/full/box/empty.format=image/tiff", r"^status: ours 406", "an array without elements is no picture"),
    (r"/search", r"^\$\.links\.(next|self)", "cursors are numbers of a database, and a first page has its offset"),
    (r".*", r"^status: ours 4\d\d, peer 5\d\d", "a question that is wrong is told so; the peer fails on it"),
    (r".*", r"^status: ours 200, peer 5\d\d", "the peer fails on it"),
    (r".*", r"^status: ours 422, peer 400", "both refuse it"),
    (r"filter\[nonsense", r"^status", "unknown filters are refused; the peer passes over them"),
    (r"slice=|partition=-1", r"^status: ours 422, peer 200", "too many indices and negative partitions are refused"),
    (r"/table/partition.*partition=1", r"^status|rows", "a partition that is not there yet is empty here"),
    (r"/container/full", r"^status: ours 200, peer 406", "exports that the peer has only by configuration, or not without it"),
    (r"format=$", r"^status: ours 200, peer 406", "an empty format is the default"),
    (r"format=image/png", r"^status: ours 406", "a PNG wants two axes"),
    (r"format=image/png", r"^\$\[\]", "levels of gray: from the least to the greatest value here, between percentiles there"),
    (
        r"/array/block/box/ints",
        r"^\$:",
        "blocks of big-endian numbers: the peer turns the bytes, and still tells the type as big-endian",
    ),
    (r"/box/times", r"^\$", "times are told to their full precision in JSON"),
    (r"/box/records.*csv", r"^\$", "records in CSV: as base64 here, as the text of a Python value there"),
    (
        r"/table/.*(text/csv|text/html)",
        r"^\$:",
        "CSV and HTML are written by Arrow here and by pandas there (True, quotes, markup)",
    ),
    (
        r"/table/",
        r"__index_level_0__",
        "no index of pandas is added",
    ),
    (r"^GET /$", r"^\$\.(aliases|formats|links\.documentation|meta\.server)", "what is offered, and who says so"),
    (r".*", r"^\$\.links\.self.*page\[offset\]=0", "the first page is told with its offset"),
    (
        r"fields=",
        r"links\.(search|full|block|partition|buffers)|structure_family: ours null",
        "what was not asked for is left out",
    ),
    (r"/distinct", r"^\$\.(metadata|structure_families)", "the order of distinct values is not told"),
    (r"sort=-n", r"^\$\.data", "numbers sort as numbers; the peer's order is that of their texts"),
    (r".*", r"assets\[\]\.|dataset_id", "tables in files lie in a directory; numbers of data sets are made differently"),
    (r"/revisions", r"access_tags", "revisions tell the tags too"),
    (r"/container/full.*json", r"contents", "columns are no children of a table here"),
    (r".*", r"^\$\.meta\.(count|has_more)", "counts are exact here; the peer counts up to a limit"),
]

#: Values that are another on every server and mean the same.
VOLATILE = re.compile(
    r"(^|\.)(id|time_created|time_updated|asset_id|data_source_id|time_modified|etag|library_version|data_uri)$"
)


def main() -> int:
    """Write, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--readable", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="also write the differences there")
    options = parser.parse_args()
    documents = recorded()
    files = made_files(options.readable)
    for uri in (options.ours, options.peer):
        write(uri, options.api_key, documents, files)
    clients = [httpx.Client(headers={"Authorization": f"Apikey {options.api_key}"}, timeout=30) for _ in range(2)]
    found: dict[str, list[str]] = defaultdict(list)
    meant: dict[str, list[str]] = defaultdict(list)
    asked = list(questions(documents[0][1]["uid"], files))
    for method, path, headers in track(asked, "asking"):
        answers = [ask(c, method, uri + path, headers) for c, uri in zip(clients, (options.ours, options.peer), strict=True)]
        question = f"{method} {path}" + (f"  Accept: {headers['Accept']}" if "Accept" in headers else "")
        for difference in differences(*answers, hosts=(options.ours, options.peer)):
            reason = next((why for q, d, why in MEANT if re.search(q, question) and re.search(d, difference)), None)
            (found[difference] if reason is None else meant[reason]).append(question)
    tell(asked, found, meant)
    if options.json:
        options.json.write_text(json.dumps({"questions": len(asked), "found": found, "meant": meant}, indent=1))
    return 1 if found else 0


def ask(client: httpx.Client, method: str, url: str, headers: dict[str, str]) -> httpx.Response:
    """The answer; a server that hangs up answers 599."""
    try:
        return client.request(method, url, headers=headers)
    except httpx.TransportError:
        return httpx.Response(599)


def recorded() -> list[tuple[str, dict[str, Any]]]:
    """The documents of two scans, once for both servers."""
    documents: list[tuple[str, dict[str, Any]]] = []
    engine = RunEngine({"beamline": "sim", "proposal": 7})
    for motor in (motor1, motor2):
        motor.delay = 0
    engine(
        scan([det1, det2], motor1, -1, 1, 7, md={"sample": "gold", "temperature": 295.5}), lambda n, d: documents.append((n, d))
    )
    engine(grid_scan([det1], motor1, 0, 1, 3, motor2, 0, 1, 2), lambda n, d: documents.append((n, d)))
    return documents


def made_files(directory: Path) -> dict[str, Path]:
    """Files of detectors: HDF5, TIFF, npy."""
    directory.mkdir(parents=True, exist_ok=True)
    frames = numpy.arange(5 * 6 * 4, dtype="<u2").reshape(5, 6, 4)
    paths = {"hdf5": directory / "frames.h5", "tiff": directory / "frame.tif", "npy": directory / "frames.npy"}
    with h5py.File(paths["hdf5"], "w") as file:
        file["entry/data"] = frames
    tifffile.imwrite(paths["tiff"], frames[0])
    numpy.save(paths["npy"], frames)
    return paths


def write(uri: str, key: str, documents: list[tuple[str, dict[str, Any]]], files: dict[str, Path]) -> None:
    """Everything that is asked for later."""
    root = from_uri(uri, api_key=key)
    writer = TiledWriter(root)
    for name, document in documents:
        writer(name, document)
    box = root.create_container("box", metadata={"color": "blue", "n": 3, "nested": {"a": [1, 2]}, "none": None}, specs=["boxed"])
    box.write_array(numpy.arange(12, dtype="<f8").reshape(3, 4), key="floats", metadata={"unit": "mm"}, dims=["y", "x"])
    box.write_array(numpy.arange(60, dtype=">i4").reshape(5, 12), key="ints", metadata={"unit": "s", "n": 10})
    box.write_array(numpy.array([True, False]), key="bools", metadata={"n": 2})
    box.write_array(numpy.array(["2026-01-01", "2026-01-02"], "datetime64[ns]"), key="times")
    box.write_array(numpy.array(["a", "bc"]), key="texts")
    box.write_array(numpy.array([(1, 2.5), (3, 4.5)], [("a", "<i4"), ("b", "<f8")]), key="records")
    box.write_array(numpy.empty((0, 3)), key="empty")
    frame = pandas.DataFrame({"i": [1, 2, 3], "x": [0.5, float("nan"), 2.5], "s": ["a", "é", ""], "b": [True, False, True]})
    box.write_table(frame, key="table", metadata={"color": "red", "n": 1})
    box.write_awkward([{"x": 1, "y": [1, 2]}, {"x": 2, "y": []}], key="awkward")
    box.write_sparse(coords=numpy.array([[0, 1], [1, 2]]), data=numpy.array([5.0, 7.0]), shape=(2, 3), key="sparse")
    for n in range(5):
        box.create_container(f"c{n}", metadata={"n": n, "letter": "aBcDe"[n], "tags": ["t", str(n)]})
    box["c1"].update_metadata({"n": 1, "letter": "B", "changed": True})
    client = httpx.Client(headers={"Authorization": f"Apikey {key}"})
    for name, mimetype, shape, parameters in (
        ("hdf5", "application/x-hdf5", (5, 6, 4), {"dataset": "entry/data"}),
        ("npy", "application/x-npy", (5, 6, 4), {}),
        ("tiff", "multipart/related;type=image/tiff", (1, 6, 4), {}),
    ):
        asset = {"data_uri": files[name].as_uri(), "is_directory": False, "parameter": "data_uris", "num": 0}
        structure = {
            "data_type": {"endianness": "little", "kind": "u", "itemsize": 2, "dt_units": None},
            "chunks": [[n] for n in shape],
            "shape": shape,
            "dims": None,
            "resizable": False,
        }
        source = {
            "structure_family": "array",
            "structure": structure,
            "mimetype": mimetype,
            "parameters": parameters,
            "management": "external",
            "assets": [asset],
        }
        body = {"id": name, "structure_family": "array", "metadata": {}, "specs": [], "data_sources": [source]}
        client.post(f"{uri}/register/box", json=body).raise_for_status()


def questions(uid: str, files: dict[str, Path]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Method, path with its query, headers."""

    def get(path: str, **headers: str) -> tuple[str, str, dict[str, str]]:
        return "GET", path, headers

    yield get("/")
    nodes = [
        "",
        uid,
        f"{uid}/primary",
        f"{uid}/primary/internal",
        "box",
        *(f"box/{k}" for k in ("floats", "ints", "bools", "times")),
    ]
    nodes += [f"box/{k}" for k in ("texts", "records", "empty", "table", "awkward", "sparse", "c1", "missing", *files)]
    for node in nodes:
        for query in (
            "",
            "?include_data_sources=true",
            "?fields=metadata&fields=specs",
            "?omit_links=true",
            "?fields=",
            "?fields=nonsense",
        ):
            yield get(f"/metadata/{node}{query}")
        yield get(f"/metadata/{node}", Accept="application/x-msgpack")
        yield get(f"/revisions/{node}")
    yield get("/metadata/box?select_metadata=color")
    for place in ("", "box", uid, f"{uid}/primary", "box/floats", "box/table", "nothing"):
        for query in (
            "",
            "?page[limit]=2",
            "?page[offset]=2&page[limit]=2",
            "?page[limit]=-1",
            "?page[limit]=x",
            "?sort=-n",
            "?sort=letter",
            "?sort=n,-letter",
            "?sort=",
            "?fields=structure_family",
            "?max_depth=1",
            "?include_data_sources=true",
            "?omit_links=true",
            "?select_metadata={a:n}",
        ):
            yield get(f"/search/{place}{query}")
    for condition in CONDITIONS:
        for place in ("box", ""):
            yield get(f"/search/{place}?fields=structure_family&{condition}")
        yield get(f"/distinct/box?metadata=color&{condition}")
    for query in (
        "metadata=color",
        "metadata=color&counts=true",
        "structure_families=true&counts=true",
        "specs=true&counts=true",
        "",
        "metadata=no",
    ):
        yield get(f"/distinct/box?{query}")
    yield from data_questions(uid)


def _condition(name: str, **fields: Any) -> str:
    return "&".join(
        f"filter[{name}][condition][{k}]={quote(json.dumps(v) if not isinstance(v, str) or k == 'value' else v)}"
        for k, v in fields.items()
    )


CONDITIONS = [
    _condition("eq", key="color", value="blue"),
    _condition("eq", key="color", value="red"),
    _condition("eq", key="n", value=3),
    _condition("eq", key="none", value=None),
    _condition("eq", key="nested.a", value=[1, 2]),
    _condition("noteq", key="color", value="red"),
    _condition("noteq", key="missing", value=1),
    *(_condition("comparison", operator=o, key="n", value=2) for o in ("lt", "gt", "le", "ge")),
    _condition("comparison", operator="near", key="n", value=2),
    _condition("contains", key="tags", value="t"),
    _condition("contains", key="letter", value="B"),
    _condition("in", key="n", value=[1, 2, 99]),
    _condition("notin", key="n", value=[1, 2, 99]),
    _condition("in", key="n", value=[]),
    _condition("like", key="letter", pattern="%"),
    _condition("like", key="color", pattern="r_d"),
    _condition("fulltext", text="red"),
    _condition("fulltext", text="nothing of it"),
    _condition("keypresent", key="color", exists=True),
    _condition("keypresent", key="color", exists=False),
    _condition("structure_family", value="array"),
    _condition("structure_family", value="nonsense"),
    _condition("specs", include=["boxed"], exclude=[]),
    _condition("specs", include=[], exclude=["boxed"]),
    _condition("keys_filter", keys=["c1", "c3"]),
    _condition("lookup", key="c1"),
    _condition("nonsense", key="x"),
    "filter[eq][condition][key]=n",
    "filter[eq][condition][key]=n&filter[eq][condition][value]=nojson",
]


def data_questions(uid: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """What is asked of data, in every format."""
    arrays = ["floats", "ints", "bools", "times", "texts", "records", "empty", "hdf5", "npy", "tiff"]
    for key in arrays:
        for query in (
            "",
            "?slice=0",
            "?slice=:,1",
            "?slice=::2",
            "?slice=-1",
            "?slice=0:99",
            "?slice=x",
            "?slice=0,0,0,0,0",
            "?expected_shape=3,4",
        ):
            for accept in ("application/octet-stream", JSON, "text/csv"):
                yield "GET", f"/array/full/box/{key}{query}", {"Accept": accept}
        for format in ("image/png", "image/tiff", "text/html", "csv", "json", "nonsense", "application/x-hdf5"):
            yield "GET", f"/array/full/box/{key}?format={quote(format)}", {}
        for block in ("0", "0,0", "0,0,0", "9,9", "-1", ""):
            yield "GET", f"/array/block/box/{key}?block={block}", {"Accept": "application/octet-stream"}
    for place in ("box/table", f"{uid}/primary/internal"):
        for query in ("", "?column=x", "?column=x&column=i", "?column=none", "?column=time"):
            for accept in (ARROW, JSON, "text/csv", "application/x-parquet", "application/json-seq", "text/html"):
                yield "GET", f"/table/full/{place}{query}", {"Accept": accept}
            for partition in ("0", "1", "-1", ""):
                sign = "&" if query else "?"
                yield "GET", f"/table/partition/{place}{query}{sign}partition={partition}", {"Accept": ARROW}
    for place in ("box", uid, f"{uid}/primary"):
        for format in (JSON, "application/x-hdf5", "nonsense", "application/json-seq"):
            yield "GET", f"/container/full/{place}?format={quote(format)}", {}
    for format in ("", "application/json", "application/zip", "application/vnd.apache.arrow.file", "application/x-parquet"):
        yield "GET", f"/awkward/full/box/awkward?format={quote(format)}", {}
    for format in ("", "application/json", ARROW, "text/csv", "application/x-parquet"):
        yield "GET", f"/array/full/box/sparse?format={quote(format)}", {}
    for family in ("array", "table", "container", "awkward"):
        for key in ("floats", "table", "c1", "awkward", "missing"):
            yield "GET", f"/{family}/full/box/{key}", {}
    for method, path in (("GET", "/nothing/x"), ("DELETE", "/"), ("PUT", "/array/full/box/floats"), ("POST", "/metadata/box")):
        yield method, path, {}


def differences(ours: httpx.Response, peer: httpx.Response, *, hosts: tuple[str, str]) -> Iterator[str]:
    """Each as a line: where, and what each says."""
    if ours.status_code != peer.status_code:
        yield f"status: ours {ours.status_code}, peer {peer.status_code}"
        return
    if ours.status_code >= 400:
        return  # sentences differ
    kinds = [r.headers.get("content-type", "") for r in (ours, peer)]
    if kinds[0] != kinds[1]:
        yield f"content-type: ours {kinds[0]}, peer {kinds[1]}"
    values = [decoded(r, host) for r, host in zip((ours, peer), hosts, strict=True)]
    yield from compared("$", *values)


def decoded(response: httpx.Response, host: str) -> Any:
    """What an answer says, without what only its form says."""
    kind, body = response.headers.get("content-type", "").split(";")[0], response.content
    if kind == JSON:
        return msgspec.json.decode(body.replace(host.encode(), b"HOST"))
    if kind == "application/x-msgpack":
        text = json.dumps(msgspec.msgpack.decode(body), default=repr)
        return json.loads(text.replace(host, "HOST"))
    if kind == ARROW:
        table = pyarrow.ipc.open_file(body).read_all()
        return columns(table)
    if kind == "application/x-parquet":
        table = pyarrow.parquet.read_table(io.BytesIO(body))
        return columns(table)
    if kind == "application/x-hdf5":
        tree: dict[str, Any] = {}
        with h5py.File(io.BytesIO(body)) as file:
            file.visititems(lambda n, o: tree.__setitem__(n, repr(o[()].tolist()) if isinstance(o, h5py.Dataset) else "group"))
        return tree
    if kind == "image/tiff":
        return tifffile.imread(io.BytesIO(body)).tolist()
    if kind == "image/png":
        return numpy.asarray(Image.open(io.BytesIO(body)).convert("L")).tolist()
    if kind in ("application/octet-stream", "application/zip"):
        return body.hex() if kind != "application/zip" else None  # a zip has times in it
    if kind == "application/json-seq":
        return [msgspec.json.decode(line.strip(b"\x1e")) for line in body.splitlines() if line.strip()]
    return body.decode("utf8", "replace").replace("\r\n", "\n")


def columns(table: pyarrow.Table) -> dict[str, Any]:
    """Type and values of each column, by name: their order is that of the question in one server, of the table in the other."""
    return {f.name: f"{f.type} {table[f.name].to_pylist()}" for f in table.schema}


def compared(place: str, ours: Any, peer: Any) -> Iterator[str]:
    """Where two values differ. Lists are compared place by place, and told as one place."""
    if VOLATILE.search(place) and type(ours) is type(peer):
        return
    if isinstance(ours, dict) and isinstance(peer, dict):
        for key in {**peer, **ours}:
            where = f"{place}.{key}"
            if key not in ours:
                yield f"{where}: only the peer says it ({_short(peer[key])})"
            elif key not in peer:
                yield f"{where}: only ours says it ({_short(ours[key])})"
            else:
                yield from compared(where, ours[key], peer[key])
    elif isinstance(ours, list) and isinstance(peer, list):
        if len(ours) != len(peer):
            yield f"{place}: ours has {len(ours)} items, peer {len(peer)}"
            return
        told: set[str] = set()
        for one, other in zip(ours, peer, strict=True):
            told.update(compared(f"{place}[]", one, other))
        yield from sorted(told)
    elif ours != peer and not (ours != ours and peer != peer):
        yield f"{place}: ours {_short(ours)}, peer {_short(peer)}"


def _short(value: Any) -> str:
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{20,}", "UUID", json.dumps(value, default=repr))
    return text if len(text) < 90 else text[:86] + " …"


def tell(asked: list[Any], found: dict[str, list[str]], meant: dict[str, list[str]]) -> None:
    """A table of kinds."""
    console = Console()
    table = Table("difference", "times", "for example", show_lines=True)
    for difference, where in sorted(found.items(), key=lambda item: -len(item[1])):
        table.add_row(difference, str(len(where)), where[0])
    for reason, where in meant.items():
        table.add_row(f"[dim]meant: {reason}", str(len(where)), where[0])
    console.print(table)
    console.print(f"{len(asked)} questions; {len(found)} kinds of differences that are not meant")


if __name__ == "__main__":
    sys.exit(main())
