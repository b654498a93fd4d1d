"""Errors as a person reads them: whose fault it is, text from anywhere made printable, and what to do about a disk."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
UNWRITABLE = (*DISK_FULL, errno.EROFS)
"""Errors of a place where nothing more can be written: to go on would only waste what is computed."""
REASON_LIMIT = 2000
"""Characters of a failure's reason on a terminal, in `cells.json` and on the pages."""
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
    """What the user can set right: a component cannot be built from its options, or a file cannot be read.

    Told by its text alone, as are the errors that the other packages raise for such (`harness.run.worker`); any other
    error of a stage is told as a bug, with its type and a traceback file.
    """


@contextmanager
def users_input() -> Iterator[None]:
    """A block that builds a component or reads a user's file: a ValueError in it is the user's, by contract."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def printable(text: str, limit: int = REASON_LIMIT) -> str:
    """The text with control characters and lone surrogates escaped, its middle left out beyond `limit` characters."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def is_about_a_place(error: OSError) -> bool:
    """Whether it names a file, or says that a disk is full or read-only: the environment's fault, not a bug."""
    return error.filename is not None or error.errno in UNWRITABLE


def os_error_message(error: OSError) -> str:
    """File, fact and fix of an error of the operating system."""
    place = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in DISK_FULL:
        fix = "free some and run again; what was computed is kept"
    else:
        fix = "give a file or folder that can be read or written there"
    return f"{place}{error.strerror or error}; {fix}"
