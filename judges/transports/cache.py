"""Replies that were paid for, kept in one SQLite file, so that none is paid for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from judges.errors import JudgeError
from judges.protocols.protocol import ChatReply, ChatRequest


class ReplyCache:
    """Replies by the hash of all that determines them. What is kept is the reply, not its reading.

    Each reply is written as it comes and survives the process. Several processes may share a file.

    Args:
        path: a file, made where there is none, or a folder, in which it is `replies.sqlite`.

    Raises:
        ValueError: the file cannot be made or is no cache.
    """

    def __init__(self, path: Path) -> None:
        path = path / "replies.sqlite" if path.is_dir() else path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")
            self.connection.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise JudgeError(f"cache {path} cannot be opened: {error}; give another file") from error

    def get(self, key: str) -> ChatReply | None:
        """The reply under a key, with the tokens, seconds and cost it took and no calls; None where there is none."""
        row = self.connection.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        reply = ChatReply(**json.loads(row[0]))
        top = None if reply.top is None else [(token, value) for token, value in reply.top]
        return replace(reply, top=top, calls=0)

    def put(self, key: str, reply: ChatReply) -> None:
        """Keep a reply; the first one under a key stays."""
        self.connection.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, json.dumps(asdict(reply))))


def request_key(model: str, base_url: str | None, repeat: int, request: ChatRequest) -> str:
    """SHA-256 (hex) of what determines a reply. The placement of the responses is in the messages."""
    messages: Sequence[object] = [sorted(turn.items()) for turn in request.messages]
    decoding = [request.max_tokens, request.temperature, request.labels, request.top_logprobs]
    described = json.dumps([model, base_url, repeat, messages, decoding])
    return hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()
