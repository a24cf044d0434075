"""Runs a program under the system call filter of a unit: ``python sandbox.py UNIT PROGRAM ARGUMENTS…``.

systemd itself is needed for the names that stand behind ``@groups`` and libseccomp for the filter; not a systemd that runs.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import subprocess
import sys
from pathlib import Path

ALLOW = 0x7FFF0000
KILL = 0x80000000
REFUSE_EPERM = 0x00050001


def main() -> None:
    """Apply the filter to this process and become the program."""
    unit, program = Path(sys.argv[1]).read_text(), sys.argv[2:]
    lists: list[str] = re.findall(r"^SystemCallFilter=(.+)$", unit, re.MULTILINE)
    allowed = members("@default")  # systemd's own addition
    for line in lists:
        names = {name for word in line.lstrip("~").split() for name in members(word)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    apply(allowed, REFUSE_EPERM if "\nSystemCallErrorNumber=EPERM\n" in unit else KILL)
    os.execvp(program[0], program)


def members(word: str) -> set[str]:
    """The system calls behind a word of a filter."""
    if not word.startswith("@"):
        return {word}
    done = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True)
    inside = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    return {name for line in inside if not line.startswith("#") for name in members(line)}


def apply(allowed: set[str], otherwise: int) -> None:
    """From here on, in this process and its children, other system calls are refused, or kill."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp"))
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(otherwise)))
    for name in allowed:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # known on this architecture
            assert library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    assert library.seccomp_load(context) == 0


if __name__ == "__main__":
    main()
