"""Python source as a text that is equal where the code is: no docstrings, comments, layout or positions.

Python 3.11 to 3.13 give one text for one source. Their trees differ in fields that are empty (`type_params`) and in how
an f-string is cut into pieces; both are evened out here.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

ROOMS = ("harness", "trainers", "judges", "leaderboards", "reports")
"""Our own top-level packages. Where in one a name lives decides nothing, so an import from it names the room alone."""

IGNORED = ("kind", "type_comment", "type_ignores", "ctx")


def digest(nodes: Sequence[ast.AST]) -> str:
    """SHA-256 (hex) of the code of these nodes, in this order."""
    return hashlib.sha256(canonical(nodes).encode()).hexdigest()


def canonical(nodes: Sequence[ast.AST]) -> str:
    """The nodes as ASCII text, unambiguous. A stack of our own: generated code nests deeper than Python recurses."""
    pieces: list[str] = []
    stack: list[ast.AST | str] = list(reversed(_code(nodes)))
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            pieces.append(item)
        else:
            stack.extend(reversed(_parts(item)))
    return "".join(pieces)


def parse(source: bytes) -> ast.Module | None:
    """The tree; None where this Python cannot read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in a plug-in is no news of ours
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file: of its code where it is Python source that can be read, else of its bytes.

    A file is read once in a process, until its size or time changes.
    """
    stat = path.stat()
    return _file_digest(path, stat.st_mtime_ns, stat.st_size)


def bytes_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read once as in `file_digest`."""
    stat = path.stat()
    return _bytes_digest(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _file_digest(path: Path, modified: int, size: int) -> str:
    tree = parse(path.read_bytes()) if path.suffix == ".py" else None
    return digest([tree]) if tree else _bytes_digest(path, modified, size)


@lru_cache(maxsize=4096)
def _bytes_digest(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(node: ast.AST) -> list[ast.AST | str]:
    if isinstance(node, ast.Constant):
        return [_constant(node.value)]
    parts: list[ast.AST | str] = ["(", type(node).__name__]
    for name, value in _fields(node):
        parts += [f" {name}=", *_value(value)]
    return [*parts, ")"]


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The fields that say something, evened out."""
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.JoinedStr):
            value = _pieces(node)
        elif name == "format_spec" and value is not None and not _pieces(value):
            continue
        elif name == "module" and isinstance(node, ast.ImportFrom) and not node.level:
            value = room_or_module(value)
        elif isinstance(value, list):
            value = _code(value)
        if value and name not in IGNORED:
            yield name, value


def room_or_module(name: str) -> str:
    """The room of a module of ours, the name of any other."""
    top = name.partition(".")[0]
    return top if top in ROOMS else name


def _value(value: Any) -> list[ast.AST | str]:
    if isinstance(value, list):
        return ["[", *(part for item in value for part in (*_value(item), ",")), "]"]
    return [value] if isinstance(value, ast.AST) else [ascii(value)]


def _constant(value: Any) -> str:
    # `ascii`, as what `repr` escapes depends on the Unicode version; hex, as long decimals are refused.
    text = hex(value) if type(value) is int else ascii(value)
    return f"<{type(value).__name__} {text}>"


def _code(nodes: Sequence[Any]) -> list[Any]:
    """A list of nodes without statements that do nothing: docstrings and other bare constants, `pass`."""
    return [node for node in nodes if not is_inert(node)]


def is_inert(node: Any) -> bool:
    """Whether a statement does nothing."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _pieces(joined: ast.JoinedStr) -> list[ast.AST]:
    """The pieces of an f-string: neighbouring texts as one, empty ones left out."""
    pieces: list[ast.AST] = []
    for is_text, group in groupby(_flat(joined), lambda piece: isinstance(piece, ast.Constant)):
        run = list(group)
        text = "".join(piece.value for piece in run if isinstance(piece, ast.Constant) and isinstance(piece.value, str))
        pieces += ([ast.Constant(text)] if text else []) if is_text else run
    return pieces


def _flat(joined: ast.JoinedStr) -> Iterator[ast.AST]:
    for piece in joined.values:
        if isinstance(piece, ast.JoinedStr):
            yield from _flat(piece)
        else:
            yield piece
