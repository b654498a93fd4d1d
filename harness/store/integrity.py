"""What the manifest of an artifact says of its files, and whether it is so."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
LARGE = 10**9
"""Bytes above which a file's content is checked once in a store, not once in a process."""
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}
"""What platforms and file systems say that cannot flush a folder."""

Manifest = dict[str, Any]


class Difference(Exception):
    """How an artifact differs from what its manifest says."""


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Relative name -> bytes and SHA-256 (hex) of every file of a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {f.relative_to(folder).as_posix(): {"bytes": f.stat().st_size, "sha256": file_hash(f)} for f in files}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest with its own SHA-256, and see it on the disk; the files are on it before.

    Raises:
        OSError: the disk does not take it.
    """
    sync_tree(folder)
    plain = json.loads(json.dumps(manifest))  # as it will be read: tuples are lists and keys are text
    text = json.dumps({**plain, "sha256": _checksum(plain)}, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    sync(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the artifact in a folder.

    Raises:
        Difference: it is missing, empty, changed or another artifact's.
        OSError: it may not be read.
    """
    with _reading(MANIFEST):
        content = (folder / MANIFEST).read_bytes()
    if not content:
        raise Difference(f"{MANIFEST} is empty")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Difference(f"{MANIFEST} is no JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _checksum(manifest):
        raise Difference(f"{MANIFEST} has another content than was written")
    if manifest["key"] != folder.name:
        raise Difference(f"{MANIFEST} is that of {manifest['kind']} {manifest['key']}")
    return manifest


def _checksum(manifest: Manifest) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def check_whole(folder: Path) -> Manifest:
    """The artifact's manifest, once every file was read and is as the manifest says.

    Raises:
        Difference: a file is missing, or has another size or content.
        OSError: a file may not be read.
    """
    manifest = read_manifest(folder)
    for name, file in manifest["files"].items():
        _right_size(folder, name, file["bytes"])
        _check_content(folder, name, file["sha256"])
    return manifest


class Verifier:
    """Checks artifacts of a store: sizes always, the content of a file once, unless its size or time changes.

    The content of files over `LARGE` is checked once for all processes: `verified.jsonl` in the store has a line for
    each. A line lost or torn costs one more look.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._log = root, root / "verified.jsonl"
        self._verified: dict[str, tuple[int, int]] = {}

    def check(self, folder: Path, part: str = "") -> Manifest:
        """The artifact's manifest, once the sizes of all its files and the content of those in `part` are right.

        Files that the manifest does not name are not looked at.

        Args:
            part: a file or folder within the artifact; empty for the whole of it.

        Raises:
            Difference: a file is missing, or has another size or content.
            OSError: a file may not be read.
        """
        manifest = read_manifest(folder)
        statuses = {name: _right_size(folder, name, file["bytes"]) for name, file in manifest["files"].items()}
        for name, status in statuses.items():
            sha256 = manifest["files"][name]["sha256"]
            wanted = not part or name == part or name.startswith(f"{part}/")
            if wanted and not self._is_verified(folder / name, status, sha256):
                _check_content(folder, name, sha256)
                self._remember(folder / name, status, sha256)
        return manifest

    def remember(self, folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
        """This process wrote the files, and hashed them as it did."""
        for name, file in files.items():
            self._remember(folder / name, os.stat(folder / name), file["sha256"])

    def _is_verified(self, path: Path, status: os.stat_result, sha256: str) -> bool:
        if self._verified.get(str(path)) == (status.st_size, status.st_mtime_ns):
            return True
        with suppress(OSError):
            if status.st_size > LARGE and self._line(path, status, sha256) in self._log.read_text().splitlines():
                return True
        return False

    def _remember(self, path: Path, status: os.stat_result, sha256: str) -> None:
        self._verified[str(path)] = status.st_size, status.st_mtime_ns
        if status.st_size > LARGE:
            with suppress(OSError), self._log.open("a") as log:  # a store that is only read is checked each time
                log.write(self._line(path, status, sha256) + "\n")

    def _line(self, path: Path, status: os.stat_result, sha256: str) -> str:
        return json.dumps([path.relative_to(self._root).as_posix(), status.st_size, status.st_mtime_ns, sha256])


def _right_size(folder: Path, name: str, size: int) -> os.stat_result:
    with _reading(name):
        status = os.stat(f"{folder}/{name}")
    if status.st_size != size:
        raise Difference(f"{name} has {status.st_size} bytes, not the {size} of the manifest")
    return status


def _check_content(folder: Path, name: str, sha256: str) -> None:
    with _reading(name):
        actual = file_hash(folder / name)
    if actual != sha256:
        raise Difference(f"{name} has another content: SHA-256 {actual[:12]}..., in the manifest {sha256[:12]}...")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """A file that is gone, or that the disk has lost, is damage; one that may not be read is not."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Difference(f"{name} is missing") from error
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise Difference(f"{name} cannot be read from the disk: {error.strerror}") from error


def sync_tree(folder: Path) -> None:
    """See every file and folder below, and the folder itself, on the disk.

    Raises:
        OSError: the disk does not take them.
    """
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """See a file, or the names in a folder, on the disk; some file systems cannot, for folders, and that is no error.

    Raises:
        OSError: the disk does not take it.
    """
    handle = -1
    try:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC or not path.is_dir():
            raise
    finally:
        if handle >= 0:
            os.close(handle)
