"""JSON that a client sent: a body, or a value inside a query.

What must stay true: whatever passes here can be written as JSON again, inside an answer, a message or a database. So the depth is
bounded: those who write JSON have limits of their own (254 levels and more), and would meet them when somebody else reads.
"""

from __future__ import annotations

from typing import Any

import orjson

from ..domain.errors import Malformed

__all__ = ["MAX_DEPTH", "check_depth", "load", "load_object"]

#: Objects and lists inside each other.
MAX_DEPTH = 100


def load(text: bytes | str, what: str) -> Any:
    """The value. `Malformed`, naming `what`, if it is no JSON or nested too deeply."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"{what} is not JSON: {error}.") from None
    # Few enough brackets cannot be too deep: most bodies need no second look.
    brackets = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    if brackets > MAX_DEPTH:
        check_depth(value, what)
    return value


def load_object(body: bytes) -> dict[str, Any]:
    """The body of a request, which must be an object; its Content-Type does not matter."""
    value = load(body, "The body")
    if not isinstance(value, dict):
        raise Malformed(f"The body must be a JSON object, not {type(value).__name__}.")
    return value


def check_depth(value: Any, what: str) -> None:
    """`Malformed` if `value`, which JSON could say, is nested more than `MAX_DEPTH` levels deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise Malformed(f"{what} is nested more than {MAX_DEPTH} levels deep; make it flatter.")
