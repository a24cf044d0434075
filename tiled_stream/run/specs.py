"""Specs that an operator declares, with the validators he names.

A name is `package.module:function`; what it leads to is called as `ingest/specs.py` tells. What cannot be loaded stops the start.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..ingest.specs import Promises, Validator
from .settings import SettingsError

__all__ = ["promises_of"]


def promises_of(declared: Sequence[Mapping[str, Any]], *, strict: bool) -> Promises:
    """`declared`: objects with `spec` and perhaps `validator`. `SettingsError` for a name that leads to no function."""
    return Promises({entry["spec"]: _validator(entry["spec"], entry.get("validator")) for entry in declared}, strict=strict)


def _validator(spec: str, name: str | None) -> Validator | None:
    if not name:
        return None
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise SettingsError(f"specs: the validator {name!r} of {spec!r} is not written as package.module:function.")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"specs: the validator {name!r} of {spec!r} cannot be loaded: {error}.") from None
    if not callable(found):
        raise SettingsError(f"specs: the validator {name!r} of {spec!r} cannot be called.")
    validator: Validator = found
    return validator
