"""Models of the Hugging Face hub by name: the commit that a name stands for, and its files.

A name is tied to a commit when a sweep is planned, so that a branch that has moved is another policy and never an old
one's results. Without a connection the commit is the cache's.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from judges.reading import clipped, shortened

logger = logging.getLogger(__name__)
HUB_ID = re.compile(r"(?P<repo>[\w.-]{1,96}(/[\w.-]{1,96})?)(@(?P<revision>[\w./-]{1,120}))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
"""What a causal language model is made of: no pickled weights, and no code."""
TOKEN = "set the environment variable HF_TOKEN to a token that may read it"


@cache
def tied(name: str) -> str:
    """ORG/NAME or ORG/NAME@REVISION as ORG/NAME@COMMIT@REVISION: the commit that it stands for now, or without a
    connection in the cache.

    Raises:
        ValueError: there is no such repository or revision, it may not be read, or nothing of it can be had.
    """
    parts = HUB_ID.fullmatch(name)
    if parts is None:
        raise ValueError(f"{shortened(name)} is no hub id; write ORG/NAME or ORG/NAME@REVISION")
    repo, revision = parts["repo"], parts["revision"] or "main"
    cached = _cached_commit(repo, revision)
    try:
        with _explained(repo, revision):
            commit = _commit_now(repo, revision)
    except ConnectionError as error:
        if cached is None:
            raise ValueError(
                f"policy {repo}@{revision} is not in the cache, and the hub cannot be reached "
                f"({clipped(str(error), 80)}); connect once, or give a folder"
            ) from error
        commit = cached
    if cached not in (None, commit):
        logger.warning(
            "%s@%s has moved from %.7s to %.7s, which is another policy; write %s@%s for the old one",
            *(repo, revision, cached, commit, repo, cached),
        )
    return f"{repo}@{commit}@{revision}"


def folder(name: str) -> Path:
    """The files of what `tied` gave, from the cache or fetched into it, where its revision then stands for it.

    Raises:
        ValueError: they cannot be had, or not all of them.
    """
    from huggingface_hub import snapshot_download

    repo, commit, revision = name.split("@")
    try:
        with _explained(repo, commit):
            found = Path(snapshot_download(repo, revision=commit, allow_patterns=list(FILES)))
    except ConnectionError as error:
        raise ValueError(
            f"policy {repo}@{revision} is not in the cache, and the hub cannot be reached ({clipped(str(error), 80)})"
        ) from error
    for index in found.glob("*.safetensors.index.json"):
        wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if missing := sorted(file for file in wanted if not (found / file).exists()):
            raise ValueError(
                f"policy {repo}@{revision}: {missing[0]} is not in the cache; connect, and run again to fetch it"
            )
    _remember(repo, revision, commit)
    return found


def _remember(repo: str, revision: str, commit: str) -> None:
    """Write into the cache which commit a branch or tag was, as the hub's client does of what it fetched by name."""
    ref = _place(repo) / "refs" / revision
    if revision != commit and not (ref.is_file() and ref.read_text() == commit):
        ref.parent.mkdir(parents=True, exist_ok=True)
        part = ref.with_name(f"{ref.name}.{os.getpid()}")
        part.write_text(commit)
        part.replace(ref)


def _place(repo: str) -> Path:
    """The repository's folder in the cache."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")


def _commit_now(repo: str, revision: str) -> str:
    from huggingface_hub import HfApi

    sha = HfApi().model_info(repo, revision=revision, timeout=20).sha
    assert sha is not None, "the hub names a commit for every revision"
    return sha


def _cached_commit(repo: str, revision: str) -> str | None:
    place = _place(repo)
    if COMMIT.fullmatch(revision):
        return revision if (place / "snapshots" / revision).is_dir() else None
    ref = place / "refs" / revision
    return ref.read_text().strip() if ref.is_file() else None


@contextmanager
def _explained(repo: str, revision: str) -> Iterator[None]:
    """What the hub refuses as a ValueError with what to do; what keeps it from answering as a ConnectionError."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,  # of whichever client it asks by
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise ValueError(f"policy {repo} is gated: accept its terms on its page, and {TOKEN}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"policy {repo}: the hub has no such model, or it is private; {TOKEN}") from error
    except RevisionNotFoundError as error:
        raise ValueError(f"policy {repo}: the hub has no revision {shortened(revision)} of it; give another") from error
    except HFValidationError as error:
        raise ValueError(f"policy {repo} is no hub id: {clipped(str(error))}") from error
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise ConnectionError(str(error)) from error
