"""A cache of paid replies, written as they arrive, so that none is paid for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from judges.errors import JudgeError
from judges.record_log import Record, RecordLog
from judges.transports.messages import ChatReply, ChatRequest


class ReplyCache:
    """Replies in a folder, keyed by the request alone. Stores the reply, not the verdict read from it.

    Any number of processes may share the folder; a killed one loses at most its last half second. See
    `judges.record_log`.

    Raises:
        ValueError: the folder is a file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise JudgeError(f"cache {folder} is a file; replies are kept in a folder: give another name")
        self._log = RecordLog(folder)

    def find(self, keys: Iterable[str]) -> dict[str, ChatReply]:
        """The cached replies by key, the earliest of each, with their original cost and latency and 0 calls."""
        return {key: _reply(records[0]) for key, records in self._log.find(keys).items()}

    def add(self, key: str, reply: ChatReply) -> None:
        """Store a reply; the earliest under a key is the one returned."""
        self._log.add({key: asdict(reply)})

    def learnt(self, url: str, model: str) -> tuple[str, ...]:
        """Arguments that the model at this URL was found to refuse."""
        key = _dialect_key(url, model)
        return tuple(sorted({str(name) for each in self._log.find([key]).get(key, []) for name in each["refused"]}))

    def learn(self, url: str, model: str, refused: str) -> None:
        """Keep that the model at this URL refuses an argument."""
        self._log.add({_dialect_key(url, model): {"refused": [refused]}})

    def close(self) -> None:
        """Write pending replies; also done at process exit. Raises OSError where that fails."""
        self._log.close()


@cache
def reply_cache(folder: Path) -> ReplyCache:
    """The cache in a folder, one for all judges of this process. Raises ValueError where the folder is a file."""
    return ReplyCache(folder)


def request_key(
    model: str, base_url: str | None, repeat: int, request: ChatRequest, further: Mapping[str, Any] | None = None
) -> str:
    """SHA-256 (hex) of what is sent: the labels that a chat's reply is read for are no part of it.

    The placement of the responses is in the messages.

    Args:
        further: what is sent beside a plain chat completion's arguments; nothing where there is none, so that replies
            stay found that were kept before there was any.
    """
    messages: Sequence[object] = [sorted(turn.items()) for turn in request.messages]
    decoding = [request.max_tokens, request.temperature, request.top_logprobs]
    drawn = {"top_p": request.top_p, "seed": request.seed}
    sent = {name: value for name, value in {**drawn, **(further or {})}.items() if value is not None}
    described = json.dumps([model, base_url, repeat, messages, decoding, *([sent] if sent else [])], sort_keys=True)
    return hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()


def _dialect_key(url: str, model: str) -> str:
    return hashlib.sha256(json.dumps(["refused", url, model]).encode("utf-8", "surrogatepass")).hexdigest()


def _reply(record: Record) -> ChatReply:
    top = record["top"] and [(token, value) for token, value in record["top"]]
    return replace(ChatReply(**record), top=top, calls=0)
