"""Bodies that are zips of buffers: ragged and awkward arrays.

Members are stored, not compressed, so a small body cannot be a large one in disguise.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping

from ..domain.errors import Malformed, UnsupportedType
from ..domain.uris import redacted

__all__ = ["ZIP", "check_zip_type", "members_of", "zipped"]

ZIP = "application/zip"

_MAX_MEMBERS = 10_000


def check_zip_type(content_type: str | None) -> None:
    """`UnsupportedType` for a body that is declared as something else."""
    declared = (content_type or ZIP).split(";")[0].strip().lower()
    if declared != ZIP:
        raise UnsupportedType(f"The body of such an array is {ZIP}, not {redacted(declared)}.")


def members_of(body: bytes, names: Iterable[str] | None = None) -> dict[str, bytes]:
    """The members of a zip (of `names`: those that are there). `Malformed` if it is none, or holds what it should not."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as file:
            infos = file.infolist()
            if len(infos) > _MAX_MEMBERS:
                raise Malformed(f"The zip has {len(infos)} members, more than {_MAX_MEMBERS}.")
            if any(i.compress_type != zipfile.ZIP_STORED for i in infos):
                raise Malformed("The members of the zip must be stored, not compressed (ZIP_STORED).")
            if sum(i.file_size for i in infos) > len(body) or len({i.filename for i in infos}) < len(infos):
                raise Malformed("The members of the zip overlap, or two have the same name.")
            wanted = None if names is None else set(names)
            return {i.filename: file.read(i) for i in infos if wanted is None or i.filename in wanted}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise Malformed(f"The body is not a zip of buffers: {error}") from None


def zipped(members: Mapping[str, bytes]) -> bytes:
    """One zip, without times, so that equal buffers make equal bodies."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return sink.getvalue()
