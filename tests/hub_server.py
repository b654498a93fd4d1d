"""A Hugging Face hub on the loopback address, as far as a client asks one for models: commits, files, and who may read.

`HF_ENDPOINT` must name it before `huggingface_hub` is imported, so that what it serves is asked for by other processes.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
INFO = re.compile(rf"/api/models/{REPO}(/revision/(?P<revision>[^?/]+))?(\?.*)?")
TREE = re.compile(rf"/api/models/{REPO}/tree/(?P<revision>[^?/]+)(\?.*)?")
FILE = re.compile(rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>[^?]+)(\?.*)?")


@dataclass
class Hub:
    """Repositories by name: branches with their commits, and each commit's folder.

    Attributes:
        gated: repositories whose files nobody may read.
        asked: paths of all requests.
    """

    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    folders: dict[tuple[str, str], Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Hub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                _answer(hub, self, body=False)

            def do_GET(self) -> None:
                _answer(hub, self, body=True)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def push(self, repo: str, folder: Path, branch: str = "main") -> str:
        """Make a folder the newest commit of a branch; the commit."""
        commit = hashlib.sha1(f"{repo} {folder}".encode()).hexdigest()
        self.branches.setdefault(repo, {})[branch] = commit
        self.folders[repo, commit] = folder
        return commit

    def commit(self, repo: str, revision: str | None) -> str | None:
        named = self.branches.get(repo, {}).get(revision or "main")
        return named or (revision if (repo, revision or "") in self.folders else None)


def _answer(hub: Hub, request: BaseHTTPRequestHandler, body: bool) -> None:
    hub.asked.append(request.path)
    status, content, headers = _found(hub, request.path)
    _send(request, status, content, headers, body)


def _found(hub: Hub, path: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, content and headers of what is at a path."""
    info, tree, file = (pattern.fullmatch(path) for pattern in (INFO, TREE, FILE))
    asked = info or tree or file
    if asked is None or asked["repo"] not in hub.branches:
        return 404, b"", {"X-Error-Code": "RepoNotFound"}
    repo = asked["repo"]
    commit = hub.commit(repo, asked["revision"])
    if commit is None:
        return 404, b"", {"X-Error-Code": "RevisionNotFound"}
    folder = hub.folders[repo, commit]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    if info:
        return _json({"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]})
    if tree:
        return _json([{"type": "file", "path": n, "size": len(c), "oid": _oid(c)} for n, c in files.items()])
    if repo in hub.gated:
        return 403, b"", {"X-Error-Code": "GatedRepo"}
    content = files.get(asked["path"])
    if content is None:
        return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
    return 200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit}


def _json(value: Any) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _send(request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
    request.send_response(status)
    for name, value in ({"Content-Length": str(len(content))} | headers).items():
        request.send_header(name, value)
    request.end_headers()
    if body:
        request.wfile.write(content)
