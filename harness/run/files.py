"""Files of a sweep's folder, replaced whole."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

PART = ".part"


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old text or the new one, never half.

    Raises:
        OSError: it cannot be written, with the file's name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:  # a full disk is an error without a name
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def clear_parts(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder; nobody else may be writing there."""
    for file in folder.glob(f".*{PART}"):
        file.unlink(missing_ok=True)
