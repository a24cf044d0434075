"""What the files of a registered array hold, whatever is declared: element type and shape. Reads headers only."""

from __future__ import annotations

from ..domain.dtypes import from_numpy
from ..domain.errors import Malformed
from ..domain.structures import DataType
from .formats import array_opener, is_stack
from .port import Source

__all__ = ["actual_array"]


def actual_array(source: Source) -> tuple[DataType, tuple[int, ...]]:
    """Blocks: for a thread. Frames of a stack count along an axis of their own, other files follow along the first one."""
    if not source.uris:
        raise Malformed("There are no files.")
    shapes, data_type = [], None
    for number in range(len(source.uris)):
        path = source.path(number)
        with array_opener(source)(source, path) as file:
            shapes.append(file.shape)
            data_type = data_type or from_numpy(file.dtype)
    assert data_type is not None
    rest = {shape if is_stack(source) else shape[1:] for shape in shapes}
    if len(rest) > 1:
        raise Malformed(f"The files differ in shape: {sorted(rest)}.")
    if is_stack(source):
        return data_type, (len(shapes), *shapes[0])
    if len(shapes) == 1:
        return data_type, shapes[0]
    return data_type, (sum(shape[0] for shape in shapes), *shapes[0][1:])
