"""What filters need that PostgreSQL says in its own words, and values of facts as bytes that sort and compare as the values do.

Texts are their UTF-8, which sorts by code points whatever the locale of the database. A number is the double nearest to it and
what is missing to the number itself, so that integers of 64 bits and doubles have one order and 1 equals 1.0. Bytes hold every
character, NUL too.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Any

from ..domain.errors import Malformed
from .facts import Kind, stored

__all__ = ["NOTHING", "PostgresDialect", "encoded", "parameter", "scalar", "text_beside"]

#: In the place of a missing value: that of null.
NOTHING = r"'\x01'::bytea"
#: Bytes of a text that an index can take (a third of a page); of a longer one the beginning and a digest.
_MOST = 1000
_SIGN = 1 << 63


class PostgresDialect:
    """`Dialect` of PostgreSQL."""

    def value(self, kind: Kind) -> str:
        return "f.value"

    def stored(self, kind: Kind, value: Any) -> Any:
        try:
            return encoded(kind, stored(kind, value))
        except UnicodeEncodeError as error:
            raise Malformed(f"A value of this search is none that can be stored: {error}.") from error

    def like(self, kind: Kind) -> str:
        # Nothing escapes in a pattern; a parameter of type text.
        return "text_of(coalesce(f.text, f.value)) LIKE ?::text ESCAPE ''"

    def has_part(self) -> str:
        return "position(?::bytea IN coalesce(f.text, f.value)) > 0"

    def part(self, text: str) -> Any:
        return text.encode(errors="surrogatepass")  # found nowhere, if it is no text

    def substring(self, text: str, part: str) -> str:
        return f"position({part}::text IN {text}) > 0"

    def deep_equal(self, metadata: str, key: str, value: str) -> str:
        return f"json_of({metadata}) #> regexp_split_to_array({key}::text, '[.]') = json_of({value}::text)"

    def deep_contains(self, metadata: str, key: str, value: str) -> str:
        return (
            f"EXISTS (SELECT 1 FROM (SELECT json_of({metadata}) #> regexp_split_to_array({key}::text, '[.]') AS list) s, "
            "jsonb_array_elements(CASE jsonb_typeof(s.list) WHEN 'array' THEN s.list END) e (element) "
            f"WHERE e.element = json_of({value}::text))"
        )


def encoded(kind: Kind, value: Any) -> bytes:
    """The bytes of a value as `facts.stored` gives it."""
    if kind is Kind.TEXT:
        data: bytes = value.encode()
        return data if len(data) <= _MOST else data[:_MOST] + blake2b(data, digest_size=16).digest()
    if kind is Kind.NUMBER:
        near = float(value)
        rest = value - int(near) if isinstance(value, int) else 0
        return _double(near) + struct.pack(">Q", rest + _SIGN)
    return bytes([value + 1])


def text_beside(kind: Kind, value: Any) -> bytes | None:
    """What is kept beside the value: the text of a number, and a text whose value is not the whole of it."""
    if kind is Kind.NUMBER:
        return repr(value).encode()
    if kind is Kind.TEXT and len(data := value.encode()) > _MOST:
        return bytes(data)
    return None


def scalar(kind: int, value: bytes) -> Any:
    """The value again; of a long text its beginning."""
    if kind == Kind.TEXT:
        return value[:_MOST].decode(errors="ignore")
    if kind == Kind.NUMBER:
        return _number(value)
    return value[0] - 1


def parameter(value: Any) -> Any:
    """A parameter as PostgreSQL can take it: `text` has no NUL, so what is compared with one is equal to nothing."""
    return value.replace("\x00", "\u2400") if isinstance(value, str) and "\x00" in value else value


def _double(value: float) -> bytes:
    """Big-endian, sign first: bytes sort as the numbers do. Both zeros are one."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", value + 0.0))
    return struct.pack(">Q", bits ^ (_SIGN if bits < _SIGN else (1 << 64) - 1))


def _number(value: bytes) -> int | float:
    bits, rest = struct.unpack(">QQ", value)
    (near,) = struct.unpack(">d", struct.pack(">Q", bits ^ (_SIGN if bits >= _SIGN else (1 << 64) - 1)))
    return int(near) + rest - _SIGN if near == near // 1 and abs(near) < 1e300 else float(near)
