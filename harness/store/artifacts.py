"""The artifact store: a directory for each stage, named by its key, visible only when whole; verdicts and replies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.stage import Stage
from harness.store.verdicts import VerdictStore, verdict_store
from judges.transports.cache import ReplyCache, reply_cache

MANIFEST = "manifest.json"
UNFINISHED = "unfinished"
IDLE = 86400.0
"""Seconds without a change after which nobody is at work in a folder of unfinished work."""


class Store:
    """Artifacts below one folder, shared by any number of sweeps; the folder is made when something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def prepare(self) -> None:
        """Make the folder, before anything starts, and clear away unfinished work of stages that are done since.

        Work that was changed after the artifact came may be another process's, at the same stage: it stays for a day.

        Raises:
            ValueError: it cannot be written.
        """
        try:
            self._tmp.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"the store {self.root} cannot be written: {error.strerror}") from error
        for folder in (self.root / UNFINISHED).glob("*"):
            with contextlib.suppress(FileNotFoundError):  # another process clears away as well
                if self._is_left_over(folder):
                    shutil.rmtree(folder, ignore_errors=True)

    def _is_left_over(self, folder: Path) -> bool:
        """Whether the stage of a folder of unfinished work is done and nobody is at work there."""
        artifacts = self.root.glob(f"*/{folder.name[:2]}/{folder.name}/{MANIFEST}")
        published = [file.stat().st_mtime for file in artifacts]
        changed = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
        return bool(published) and changed <= max(*published, time.time() - IDLE)

    def unfinished(self, stage: Stage) -> Path:
        """A folder for what a later run of the stage goes on from; it goes once the artifact is in the store."""
        return self.root / UNFINISHED / stage.key

    @property
    def _tmp(self) -> Path:
        """Where artifacts are written that are not whole yet."""
        return self.root / "tmp"

    def path(self, stage: Stage) -> Path:
        """Where the stage's artifact is or will be."""
        return self.root / stage.kind / stage.key[:2] / stage.key

    def has(self, stage: Stage) -> bool:
        """Whether the artifact is there, whole."""
        # Asked hundreds of thousands of times in a sweep: a Path would take ten times as long.
        return os.path.isfile(f"{self.root}/{stage.kind}/{stage.key[:2]}/{stage.key}/{MANIFEST}")

    def manifest(self, stage: Stage) -> dict[str, Any]:
        """What is known of an artifact: stage, seconds, work done, file hashes.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.path(stage) / MANIFEST
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} is damaged; delete the folder that it is in, and run again") from error

    @contextmanager
    def writing(self, stage: Stage) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A folder to fill and a dict of facts for the manifest; it becomes the artifact when the block ends well.

        The manifest is written last and the folder appears by rename. Where another process was quicker its artifact
        stands. On an error nothing is left behind.
        """
        self._tmp.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{stage.kind}-", dir=self._tmp))
        facts: dict[str, Any] = {}
        try:
            yield folder, facts
            manifest = {
                "kind": stage.kind,
                "key": stage.key,
                "options": stage.options,
                "inputs": {name: source.key for name, source in stage.inputs.items()},
                **facts,
                "files": {str(f.relative_to(folder)): file_hash(f) for f in sorted(folder.rglob("*")) if f.is_file()},
            }
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
            target = self.path(stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.chmod(folder, 0o755)
            try:
                os.rename(folder, target)
            except OSError:
                if not self.has(stage):
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def verdicts(self) -> VerdictStore:
        """The verdicts that all sweeps on the store share."""
        return verdict_store(self.root / "verdicts")

    @property
    def replies(self) -> ReplyCache:
        """What endpoints replied to judges in any sweep on the store."""
        return reply_cache(self.root / "replies")


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
