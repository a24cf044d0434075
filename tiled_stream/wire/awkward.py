"""Awkward arrays on the wire: a zip of the buffers of a declared form, in and out, and the formats of `awkward_export.py`.

What must stay true: buffers that were accepted make a valid array of the declared form and length. Imported when the first such
array comes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import awkward
import numpy

from ..domain.errors import Malformed, NotAcceptable
from ..domain.structures import AwkwardStructure
from .awkward_export import encode_arrow, encode_json, encode_parquet
from .zipped import ZIP, members_of, zipped

__all__ = ["buffer_names", "check_form", "decode_awkward", "encode_awkward"]


def check_form(structure: AwkwardStructure) -> None:
    """`Malformed` unless the form is one, and its buffers can be told apart."""
    names = buffer_names(structure)
    if any("/" in name or "\x00" in name or len(name.encode()) > 200 or name.startswith(".") for name in names):
        raise Malformed("The 'form_key's of an awkward form name buffers: no '/', at most 200 bytes, no '.' at the beginning.")


def buffer_names(structure: AwkwardStructure, form_keys: Collection[str] | None = None) -> list[str]:
    """The buffers that such an array has, or those of some nodes of its form."""
    names = list(_expected(structure))
    return names if form_keys is None else [n for n in names if n.rpartition("-")[0] in form_keys]


def decode_awkward(body: bytes, structure: AwkwardStructure) -> bytes:
    """Check an uploaded zip; what is returned holds the declared buffers and nothing beside. `Malformed` says what is wrong."""
    expected = _expected(structure)
    members = members_of(body, expected)
    missing = expected.keys() - members.keys()
    if missing:
        raise Malformed(f"The zip lacks the buffer {sorted(missing)[0]!r} that the form demands.")
    array = _array(structure, members)
    try:
        fault = awkward.validity_error(array)
    except (ValueError, TypeError, IndexError) as error:
        fault = str(error)
    if fault:
        raise Malformed(f"The buffers contradict the form: {fault}")
    return zipped({name: members[name] for name in expected})


def encode_awkward(structure: AwkwardStructure, members: Mapping[str, bytes], media_type: str) -> bytes:
    """The whole array in one of the formats announced; `NotAcceptable` where a format has no room for it."""
    if media_type == ZIP:
        return zipped(members)
    array = awkward.Array(_array(structure, members))
    if media_type == "application/json":
        return encode_json(array)
    try:
        return encode_parquet(array) if media_type == "application/x-parquet" else encode_arrow(array)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise NotAcceptable(f"This array cannot be given as {media_type}: {str(error).splitlines()[0]}") from None


def _expected(structure: AwkwardStructure) -> Mapping[str, Any]:
    try:
        form = awkward.forms.from_dict(structure.form)
        found: Mapping[str, Any] = form.expected_from_buffers(buffer_key="{form_key}-{attribute}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Malformed(
            f"'form' is no form of the awkward library: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None
    return found


def _array(structure: AwkwardStructure, members: Mapping[str, bytes]) -> Any:
    form = awkward.forms.from_dict(structure.form)
    try:
        buffers = {name: numpy.frombuffer(members[name], dtype) for name, dtype in _expected(structure).items()}
        return awkward.from_buffers(form, structure.length, buffers, buffer_key="{form_key}-{attribute}", highlevel=False)
    except (ValueError, TypeError, IndexError, AssertionError) as error:
        raise Malformed(
            f"The buffers do not make such an array: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None
