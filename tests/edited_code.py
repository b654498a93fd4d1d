"""Edits of the sources in a copy of the rooms, and processes that import the copy."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("harness", "trainers", "judges", "leaderboards", "reports")


def copy_rooms(to: Path) -> Path:
    """A copy of the five packages."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, to / room, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def run(code: str, *paths: Path, variables: Mapping[str, str] | None = None) -> str:
    """What the code prints in a process that imports from these folders first."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | dict(variables or {}),
        cwd=paths[-1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def edit(file: Path, old: str, new: str) -> None:
    """Another text in place of one that is there once."""
    text = file.read_text()
    assert text.count(old) == 1, (file, old)
    file.write_text(text.replace(old, new))


def edit_function(file: Path, name: str) -> None:
    """A further statement in every function of that name."""
    text = file.read_text()
    lines = text.splitlines()
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and node.name == name]
    assert nodes
    for node in sorted(nodes, key=lambda node: -node.lineno):
        last = node.body[-1]
        lines.insert(last.lineno - 1, " " * last.col_offset + "_ = 'edited'")
    file.write_text("\n".join(lines) + "\n")


def redocument(file: Path) -> None:
    """Other docstrings, other layout, no comments, blank lines and comments of another kind."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant("Another text.")
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is None:
            node.body.insert(0, ast.Expr(ast.Constant("A docstring where there was none.")))
    file.write_text("# A comment.\n\n\n" + ast.unparse(tree).replace("\n", "\n\n"))
