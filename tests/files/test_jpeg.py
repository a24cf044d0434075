"""JPEG files, compared with what Pillow decodes: the format keeps no values exactly."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy
import pytest
from PIL import Image

from tiled_stream.domain.errors import Malformed, TooLarge, Unavailable
from tiled_stream.domain.slices import whole
from tiled_stream.files.formats import open_array
from tiled_stream.testing.array_contract import selections
from tiled_stream.testing.reader_contract import aged, array_source, open_files

STACK = "multipart/related;type=image/jpeg"


def written(path: Path, shape: tuple[int, ...], seed: int = 0) -> Any:
    """An image of this shape; what is in it after it was compressed."""
    values = numpy.random.default_rng(seed).integers(0, 255, shape, dtype="u1")
    mode = {2: "L", 3: {3: "RGB", 4: "CMYK"}.get(shape[-1])}[len(shape)]
    Image.fromarray(values, mode=mode).save(path, format="JPEG")
    with Image.open(path) as image:
        return numpy.array(image)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("shape", [(5, 7), (8, 3, 3), (4, 6, 4), (1, 1)])
def test_one_image(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = written(tmp_path / "x.jpeg", shape)
    assert values.shape == shape
    reader = open_array(array_source([tmp_path / "x.jpeg"], values, "image/jpeg"))
    assert (reader.read(whole(shape)) == values).all()
    random = Random(1)
    for _ in range(20):
        selection = selections(shape, random)
        assert (reader.read(selection) == values[(..., *selection.index)]).all()


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_a_sequence(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.jpg" for n in range(4)]
    values = numpy.array([written(path, (5, 7), seed) for seed, path in enumerate(paths)])
    reader = open_array(array_source(paths, values, STACK))
    random = Random(2)
    for _ in range(20):
        selection = selections(values.shape, random)
        assert (reader.read(selection) == values[(..., *selection.index)]).all()


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jpeg"
    values = written(path, (64, 64))
    with pytest.raises(TooLarge):
        open_array(array_source([path], values, "image/jpeg", limit=4095)).read(whole((64, 64)))
    content = path.read_bytes()
    source = array_source([path], values, "image/jpeg")
    files = open_files()
    for broken in (b"", b"\xff\xd8", b"not an image" * 50, content[: len(content) // 2], content[:30]):
        path.write_bytes(broken)
        with pytest.raises(Unavailable):
            open_array(source).read(whole((64, 64)))
        aged(path)
        with pytest.raises(Malformed):
            open_array(source).read(whole((64, 64)))
    assert open_files() == files
