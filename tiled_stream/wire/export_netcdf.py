"""Datasets of xarray as netCDF-4: dimensions, coordinates, attributes, as xarray itself would write and does read them.

The file is written array by array, piece by piece. What netCDF has no type for is refused with the name of the variable.
Blocking: for a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import msgspec
import numpy

from ..domain.errors import NotAcceptable
from .arrays import valid_texts
from .export_library import library
from .hdf5_values import attributes_of, escaped, time_attributes

__all__ = ["NetcdfFile", "NetcdfVariable"]

Array = numpy.ndarray[Any, Any]
DType = numpy.dtype[Any]

#: Units of time in which the CF conventions count; others are turned into the nearest finer one.
_TIME = {"Y": "D", "M": "D", "W": "D", "D": "D", "h": "h", "m": "m", "s": "s", "ms": "ms", "us": "us", "ns": "ns"}
#: Attributes in which HDF5 and netCDF keep house.
_RESERVED = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_FillValue", "_NCProperties", "_Netcdf4Dimid", "_nc3_strict"}
_NOT_A_TIME = numpy.iinfo(numpy.int64).min


class NetcdfVariable(msgspec.Struct, frozen=True):
    """A variable as it is declared; `is_coordinate`: its values say where those of others are."""

    name: str
    dims: tuple[str, ...]
    dtype: DType
    attributes: Mapping[str, Any]
    is_coordinate: bool = False


class NetcdfFile:
    """A new file. `NotAcceptable` without h5netcdf. Its owner closes it."""

    def __init__(self, file: BinaryIO | str) -> None:
        self._file = library("h5netcdf").File(file, "w")

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def declare(self, grid: Mapping[str, int], variables: Iterable[NetcdfVariable], attributes: Mapping[str, Any]) -> None:
        """All dimensions and variables; the cells come by `fill`. `NotAcceptable` for a type that netCDF does not have."""
        for dim, length in grid.items():
            if not length:
                raise NotAcceptable(f"The dimension {dim!r} has the length 0, which netCDF does not have; choose with ?field=.")
            self._file.dimensions[escaped(dim)] = length
        aside = []
        for variable in variables:
            self._declare(variable)
            if variable.is_coordinate and variable.dims != (variable.name,):
                aside.append(escaped(variable.name))
        _describe(self._file, {**attributes, **({"coordinates": " ".join(aside)} if aside else {})})

    def fill(self, name: str, index: tuple[slice, ...], cells: Array) -> None:
        """Cells of a declared variable."""
        self._file.variables[escaped(name)][index or ...] = _stored(cells)

    def _declare(self, variable: NetcdfVariable) -> None:
        dtype = variable.dtype
        kind = _kind(variable.name, dtype)
        is_time = dtype.kind in "mM" and _unit(dtype) is not None
        made = self._file.create_variable(
            escaped(variable.name),
            tuple(map(escaped, variable.dims)),
            kind,
            fillvalue=_NOT_A_TIME if is_time else None,
        )
        meaning: dict[str, str] = {}
        if dtype.kind == "b":
            meaning = {"dtype": "bool"}
        elif is_time:
            meaning = time_attributes(numpy.dtype(f"{dtype.kind}8[{_unit(dtype)}]"))
            if dtype.kind == "M":
                meaning = {"units": meaning["units"], "calendar": "proleptic_gregorian"}
        _describe(made, {**variable.attributes, **meaning})


def _describe(thing: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes_of({k: v for k, v in attributes.items() if v is not None}).items():
        if name not in _RESERVED:
            plain = numpy.asarray(value)
            thing.attrs[name] = plain.astype("i1") if plain.dtype.kind == "b" else value


def _unit(dtype: DType) -> str | None:
    """The unit in which a time is counted in the file; None: its numbers are all there is."""
    unit = _TIME.get(numpy.datetime_data(dtype)[0])
    return "s" if dtype.kind == "m" and unit in ("D", "h", "m") else unit  # xarray reads durations from seconds down


def _kind(name: str, dtype: DType) -> Any:
    kind = dtype.kind
    if kind in "US" and dtype.fields is None:
        return library("h5py").string_dtype()
    if kind in "mM" and numpy.datetime_data(dtype)[0] not in (*_TIME, "generic"):
        raise NotAcceptable(f"{name!r} has times finer than nanoseconds, which netCDF readers do not have; ask for HDF5.")
    if kind == "m" and numpy.datetime_data(dtype)[0] in "YM":
        raise NotAcceptable(f"{name!r} has durations of months or years, which have no fixed length; ask for HDF5.")
    if kind not in "biufmM" or dtype.fields is not None:
        raise NotAcceptable(
            f"{name!r} has elements of type {dtype}, which netCDF does not have; ask for HDF5 or choose with ?field=."
        )
    if kind in "mM":
        return numpy.dtype("i8")
    if kind == "b":
        return numpy.dtype("i1")
    return numpy.dtype(f"{kind}{4 if kind == 'f' and dtype.itemsize < 4 else min(8, dtype.itemsize)}")


def _stored(cells: Array) -> Array:
    dtype = cells.dtype
    if dtype.kind == "U":
        texts = [text.replace("\0", "�") for text in valid_texts(cells).reshape(-1).tolist()]
        return numpy.array(texts, dtype=object).reshape(cells.shape)
    if dtype.kind == "S":
        texts = [text.decode("utf-8", "replace").replace("\0", "�") for text in cells.reshape(-1).tolist()]
        return numpy.array(texts, dtype=object).reshape(cells.shape)
    if dtype.kind in "mM":
        unit = _unit(dtype)
        return cells.astype(f"{dtype.kind}8[{unit}]" if unit else f"{dtype.kind}8").astype("i8")
    with numpy.errstate(all="ignore"):
        return cells.astype(_kind("", dtype))
