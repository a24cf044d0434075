"""Opening HDF5 files for reading, whatever their writer does meanwhile.

A file that was closed is opened as it is, and what is wrong with it shows at once. One that is open for SWMR writing says so, and
is opened again in that mode. Then HDF5 repeats a read whose checksum does not fit, a hundred times, and doubles its pause each
time: for ever, if the file is spoiled, and with all of HDF5 locked. So the number of attempts is set, by the C function, which
h5py does not offer (3.16).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from threading import Lock

import h5py
import msgspec

__all__ = ["HDF5", "Opening", "is_writing"]

#: HDF5 does one thing at a time in a process; and it refuses to open a file in two modes at once, or shows the one what the other
#: has cached. So whoever reads holds this, from opening to closing. Global, as what it guards is.
HDF5 = Lock()

#: The pauses between so many attempts add up to 16 ms.
_ATTEMPTS = 24
_WRITING = ("already open for", "unable to lock file", "SWMR read access flag")


class Opening(msgspec.Struct, frozen=True):
    """How files are opened. `may_follow`: also while somebody writes, in SWMR mode. `locking`: None for no lock."""

    may_follow: bool = True
    locking: bool | str | None = None

    def file(self, path: Path) -> h5py.File:
        """The file, read only. OSError if it cannot be opened; see `is_writing`."""
        try:
            return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, self._access()))
        except OSError as error:
            if not self.may_follow or not is_writing(error):
                raise
        access = self._access()
        _limit_attempts(access)
        return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ, access))

    def _access(self) -> h5py.h5p.PropFAID:
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
        access.set_file_locking(bool(self.locking), self.locking in (None, False, "best-effort"))
        return access


def is_writing(error: OSError) -> bool:
    """Does HDF5 say that somebody has the file open for writing?"""
    return any(words in str(error) for words in _WRITING)


def _limit_attempts(access: h5py.h5p.PropFAID) -> None:
    """The extension module is linked to the library, so the function is found through it."""
    set_attempts = ctypes.CDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts
    set_attempts.argtypes = (ctypes.c_int64, ctypes.c_uint)
    if set_attempts(access.id, _ATTEMPTS) < 0:
        raise OSError("HDF5 does not take the number of attempts.")
