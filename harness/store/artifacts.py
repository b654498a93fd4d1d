"""The artifact store: a directory for each stage, named by its key, visible only when whole; verdicts and replies."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.identity import Computed, Identified
from harness.store.integrity import (
    MANIFEST,
    Difference,
    Manifest,
    Verifier,
    describe_files,
    file_hash,
    read_manifest,
    sync,
    write_manifest,
)
from harness.store.scratch import clear_abandoned, scratch_prefix
from harness.store.verdicts import VerdictStore, verdict_store
from judges.transports.cache import ReplyCache, reply_cache

UNFINISHED = "unfinished"
QUARANTINE = "quarantine"
FORMAT = 2
"""Raised when the layout of the store changes, so that a store of before is not taken for one of now."""
IDLE = 86400.0
"""Seconds without a change after which nobody is at work in a folder of unfinished work."""
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
NOT_WRITABLE = DISK_FULL | {errno.EACCES, errno.EPERM}
KEY = re.compile("[0-9a-f]{40}")
logger = logging.getLogger(__name__)


class DamagedArtifact(Exception):
    """An artifact that is not, or no longer, in the store as it was written: its stage is to be computed again.

    Attributes:
        kind: the stage's kind.
        key: the stage's key.
    """

    def __init__(self, kind: str, key: str, difference: str) -> None:
        super().__init__(kind, key, difference)
        self.kind, self.key, self.difference = kind, key, difference

    def __str__(self) -> str:
        """The artifact and what is wrong with it."""
        return f"the artifact {self.kind} {self.key} is damaged ({self.difference}); the next run computes it again"


class Store:
    """Artifacts below one folder, shared by any number of sweeps; the folder is made when something is written.

    Raises:
        ValueError: the folder is a store of another format.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._verifier = Verifier(self.root)
        self._check_format()

    def prepare(self) -> None:
        """Make the folder, before anything starts, and clear away what dead writers left and unfinished work of stages
        that are done since.

        Work that was changed after the artifact came may be another process's, at the same stage: it stays for a day.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self._tmp.mkdir(parents=True, exist_ok=True)
            clear_abandoned(self._tmp)
            tempfile.TemporaryFile(dir=self._tmp).close()  # the folder may be there on a disk that cannot be written
            self._write_format()
        except OSError as error:
            raise self._not_writable(error) from error
        for folder in (self.root / UNFINISHED).glob("*"):
            with contextlib.suppress(FileNotFoundError):  # another process clears away as well
                if self._is_left_over(folder):
                    shutil.rmtree(folder, ignore_errors=True)

    def _is_left_over(self, folder: Path) -> bool:
        """Whether the stage of a folder of unfinished work is done and nobody is at work there."""
        artifacts = self.root.glob(f"*/{folder.name[:2]}/{folder.name}/{MANIFEST}")
        published = [status.st_mtime for status in (file.stat() for file in artifacts) if status.st_size]
        changed = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
        return bool(published) and changed <= max(*published, time.time() - IDLE)

    def unfinished(self, stage: Identified) -> Path:
        """A folder for what a later run of the stage goes on from; it goes once the artifact is in the store."""
        return self.root / UNFINISHED / stage.key

    @property
    def _tmp(self) -> Path:
        """Where artifacts are written that are not whole yet."""
        return self.root / "tmp"

    def path(self, stage: Identified) -> Path:
        """Where the stage's artifact is or will be."""
        return self.root / stage.kind / stage.key[:2] / stage.key

    def has(self, stage: Identified) -> bool:
        """Whether the artifact was put there whole; whether it still is, `open` and `manifest` see."""
        # Asked hundreds of thousands of times in a sweep: a Path would take ten times as long.
        try:
            return os.stat(f"{self.root}/{stage.kind}/{stage.key[:2]}/{stage.key}/{MANIFEST}").st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False

    def open(self, stage: Identified, part: str = "") -> Path:
        """The artifact's folder, or the part of it that is named, once it is known to be as it was written.

        The size of every file is checked, and the content of what is in the part: once in a process, that of files
        over 1 GB once in a store. A damaged artifact is moved to `quarantine/`, and a warning logged.

        Raises:
            DamagedArtifact: it is damaged, or not there.
            OSError: it may not be read.
            UserError: it is damaged and cannot be moved.
        """
        with self._moving_damage_away(stage) as folder:
            self._verifier.check(folder, part)
        return folder / part

    def manifest(self, stage: Identified) -> Manifest:
        """What is known of an artifact: stage, seconds, work done, files' sizes and hashes.

        Raises:
            DamagedArtifact: it is damaged, or not there.
            OSError: it may not be read.
            UserError: it is damaged and cannot be moved.
        """
        with self._moving_damage_away(stage) as folder:
            return read_manifest(folder)

    @contextmanager
    def _moving_damage_away(self, stage: Identified) -> Iterator[Path]:
        folder = self.path(stage)
        before = _inode(folder)
        try:
            yield folder
        except Difference as difference:
            if _inode(folder) == before:  # else another process moved it away, and has perhaps computed it again
                self.quarantine(folder, str(difference))
            raise DamagedArtifact(stage.kind, stage.key, str(difference)) from difference

    def quarantine(self, folder: Path, difference: str) -> Path | None:
        """Move a damaged artifact away and log a warning: where it is now, or None where another process was quicker.

        Raises:
            UserError: it cannot be moved.
        """
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        target = self.root / QUARANTINE / f"{folder.parent.parent.name}-{folder.name}-{moment}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder, target)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{folder} is damaged ({difference}); {self._not_writable(error)}") from error
        logger.warning("%s is damaged: %s; it is moved to %s and computed again", folder, difference, target)
        return target

    def identities(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Key and identity of every artifact of a kind whose manifest can be read."""
        for folder in sorted((self.root / kind).glob("??/*")):
            with contextlib.suppress(Difference):
                yield folder.name, read_manifest(folder)["identity"]

    def artifacts(self) -> list[Path]:
        """The folders of all artifacts, damaged ones too, by kind and key."""
        return sorted(path for path in self.root.glob("*/??/*") if KEY.fullmatch(path.name))

    @contextmanager
    def writing(self, stage: Computed) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A folder to fill and a dict of facts for the manifest; it becomes the artifact when the block ends well.

        The manifest is written last and the folder appears by rename. Where another process was quicker its artifact
        stands. On an error nothing is left behind.

        Raises:
            UserError: the store cannot be written, or its disk is full.
        """
        folder, facts = None, dict[str, Any]()
        try:
            with self._naming_the_store(NOT_WRITABLE):
                self._tmp.mkdir(parents=True, exist_ok=True)
                self._write_format()
                folder = Path(tempfile.mkdtemp(prefix=scratch_prefix(stage.kind), dir=self._tmp))
            with self._naming_the_store(DISK_FULL):
                yield folder, facts
            with self._naming_the_store(NOT_WRITABLE):
                self._publish(stage, folder, facts)
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, stage: Computed, folder: Path, facts: Mapping[str, Any]) -> None:
        files = describe_files(folder)
        manifest = {
            "kind": stage.kind,
            "key": stage.key,
            "identity": stage.identity,
            **facts,
            "files": files,
        }
        write_manifest(folder, manifest)
        target = self.path(stage)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o755)
        try:
            os.rename(folder, target)
        except OSError:
            if self.has(stage):
                return
            self.quarantine(target, f"{MANIFEST} is missing or empty")
            os.rename(folder, target)
        sync(target.parent)
        self._verifier.remember(target, files)

    def _check_format(self) -> None:
        """Raises ValueError for a store of another format; one without a format file is old if it has artifacts."""
        try:
            text = (self.root / "format.json").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            text = "an older format" if next(self.root.glob(f"*/??/*/{MANIFEST}"), None) else _format_text()
        if text != _format_text():
            fix = "give another folder, --store NEW (or NASHBENCH_STORE), or delete this one"
            raise ValueError(f"the store {self.root} has {text[:80]}, not {_format_text()}, and stays as it is; {fix}")

    def _write_format(self) -> None:
        path = self.root / "format.json"
        if not path.exists():
            temporary = self.root / f".format-{uuid.uuid4().hex}"
            temporary.write_text(_format_text(), encoding="utf-8")
            sync(temporary)
            os.replace(temporary, path)

    @contextmanager
    def _naming_the_store(self, numbers: frozenset[int]) -> Iterator[None]:
        """Turns errors of these numbers, below the store or at no named place, into a UserError that says what to do.

        That a disk is full some libraries only say in words.
        """
        try:
            yield
        except OSError as error:
            named = error.filename is not None and not Path(str(error.filename)).is_relative_to(self.root)
            if error.errno not in numbers or named:
                raise
            raise self._not_writable(error) from error
        except Exception as error:
            if isinstance(error, ValueError) or os.strerror(errno.ENOSPC) not in str(error):
                raise
            raise self._not_writable(error) from error

    def _not_writable(self, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or error
        fix = "make room or give another folder, --store NEW; what is computed is kept, and the same command goes on"
        return UserError(f"the store {self.root} cannot be written: {reason}; {fix}")

    @property
    def verdicts(self) -> VerdictStore:
        """The verdicts that all sweeps on the store share."""
        return verdict_store(self.root / "verdicts")

    @property
    def replies(self) -> ReplyCache:
        """What endpoints replied to judges in any sweep on the store."""
        return reply_cache(self.root / "replies")


def _format_text() -> str:
    return json.dumps({"format": FORMAT})


def _inode(folder: Path) -> int | None:
    """Tells a folder from another that took its place."""
    try:
        return os.stat(folder).st_ino
    except OSError:
        return None


def content_hash(path: Path) -> str:
    """SHA-256 (hex) of a file, or of a folder's relative names and contents (hidden files left out)."""
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in relative.parts):
            digest.update(f"{relative}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()
