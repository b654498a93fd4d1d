"""Folders of artifacts that are being written: whose they are, and which of them nobody is at any more."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

IDLE = 86400.0
"""Seconds without a change after which a folder of another host's process is taken for abandoned."""


def scratch_prefix(kind: str) -> str:
    """How the name of a stage's folder begins: the kind, then the process and the host that write it."""
    return f"{kind}~{os.getpid()}~{_host()}~"


def clear_abandoned(folder: Path) -> None:
    """Remove what dead processes of this host left in a folder, and what was not changed for a day by others."""
    for entry in list(folder.iterdir()):
        with suppress(FileNotFoundError):  # another process clears away as well
            if _is_abandoned(entry):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()


def _is_abandoned(entry: Path) -> bool:
    _, pid, host, *_ = [*entry.name.split("~"), "", ""]
    if host == _host() and pid.isdecimal():
        return not _is_alive(int(pid))
    return max(path.stat().st_mtime for path in (entry, *entry.rglob("*"))) < time.time() - IDLE


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's
        pass
    with suppress(OSError):  # a zombie has a number as long as nobody asks how it ended
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return True


@cache
def _host() -> str:
    """The machine's name; containers on one machine number processes each for itself, and so have a name each."""
    name = re.sub(r"[^\w.-]", "_", socket.gethostname())[:60]
    with suppress(OSError):
        return f"{name}-{re.sub('[^0-9]', '', os.readlink('/proc/self/ns/pid'))}"
    return name
