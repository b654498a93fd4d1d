"""Text, JSON and YAML from users' files: one way to read them, and one short error message that names the file."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

MOST_YAML = 2**20  # characters; the pure-Python parser reads about 100,000 a second
DEEPEST = 50
MOST_VALUES = 100_000
LARGEST_INTEGER = 2**63
KINDS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
"""The kinds of a YAML document that JSON has too."""
MERGE = "tag:yaml.org,2002:merge"
UNREADABLE = re.compile("[\x00\ud800-\udfff]")
"""What no file name, tokenizer or UTF-8 file can hold: NUL, and halves of surrogate pairs."""


def shortened(value: object, limit: int = 60) -> str:
    """A user's value as a message shows it: its `repr`, at most `limit` characters, the middle left out."""
    if isinstance(value, str):
        return clipped(repr(value if len(value) <= limit else f"{value[:limit]}...{value[-limit:]}"), limit)
    try:
        return clipped(repr(value), limit)
    except (ValueError, RecursionError):  # thousands of digits; a list in a list, a thousand deep
        return f"a {type(value).__name__} too long to show"


def clipped(text: str, limit: int = 200) -> str:
    """The text on one line, at most `limit` characters, the middle left out."""
    line = " ".join(text.split())
    end = limit // 4
    return line if len(line) <= limit else f"{line[: limit - end - 3]}...{line[len(line) - end :]}"


def read_text(path: Path) -> str:
    """The UTF-8 text of a plain or gzip file, without a byte-order mark.

    Raises:
        ValueError: it is missing, cannot be read, is damaged or no text.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}, byte {error.start}); save it as UTF-8") from error
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}; fetch it again") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever ValueError is raised inside names the file."""
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def parse_json(text: str, place: str) -> Any:
    """A JSON document. Raises ValueError with the place for anything else, and for one too deep to follow."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{place}: not JSON: it is nested too deeply to be read") from error
    except ValueError as error:  # of the digits of a whole number
        raise ValueError(f"{place}: not JSON: a whole number in it has thousands of digits") from error


def parse_yaml(text: str, place: str, *, numbered: bool = True) -> Any:
    """A YAML document of the values that JSON has. Raises ValueError as `compose_yaml`."""
    return construct_yaml(compose_yaml(text, place, numbered=numbered), place, numbered=numbered)


def compose_yaml(text: str, place: str, *, numbered: bool = True) -> yaml.Node | None:
    """The tree of a YAML document, checked; None where it is empty.

    Args:
        place: the file, or what else holds the text; errors begin with it.
        numbered: whether errors give the line after it.

    Raises:
        ValueError: it is no YAML, is too large, too deep or refers to itself, a key is there twice, or a value is of a
            kind that JSON does not have, such as a date.
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"{place} has {len(text):,} characters; a YAML file may have {MOST_YAML:,}")
    try:
        tree = yaml.compose(text, Loader)
    except RecursionError as error:
        raise ValueError(f"{place} is nested more than {DEEPEST} levels deep") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{place} is not YAML: {_problem(error)}") from error
    if tree is not None:
        _Check(place, numbered).size(tree, DEEPEST)
    return tree


def construct_yaml(tree: yaml.Node | None, place: str, *, numbered: bool = True) -> Any:
    """The value of a checked tree. Raises ValueError for a scalar that is not what its tag says."""
    if tree is None:
        return None
    try:
        return Loader("").construct_document(tree)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{place}:{mark.line + 1}" if numbered and mark else place
        raise ValueError(f"{at}: {clipped(str(error.problem), 120)}") from error


class Loader(yaml.SafeLoader):
    """YAML in which 5e-7 is a number, as it is everywhere else, and a bad scalar is an error with a place."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, IndexError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{shortened(node.value)} cannot be read as {kind}; write it in quotes", node.start_mark
            ) from error
        if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
            raise yaml.constructor.ConstructorError(
                None, None, f"{shortened(node.value, 30)} is too large; whole numbers end at 2^63", node.start_mark
            )
        return value


Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), None)


class _Check:
    """Walks a tree of nodes once, each alias counted in full."""

    def __init__(self, place: str, numbered: bool) -> None:
        self.place, self.numbered = place, numbered
        self.sizes: dict[int, int] = {}
        self.open: set[int] = set()

    def size(self, node: yaml.Node, levels: int) -> int:
        """How many values a node holds once its aliases are written out."""
        if id(node) in self.open:
            raise ValueError(f"{self.at(node)}: an alias stands for a value that holds it; write the value out")
        if not levels:
            raise ValueError(f"{self.at(node)}: nested more than {DEEPEST} levels deep")
        if id(node) not in self.sizes:
            self.open.add(id(node))
            self.kind(node)
            self.sizes[id(node)] = 1 + sum(self.size(child, levels - 1) for child in self.children(node))
            self.open.remove(id(node))
        if self.sizes[id(node)] > MOST_VALUES:
            raise ValueError(f"{self.at(node)}: more than {MOST_VALUES:,} values with its aliases written out")
        return self.sizes[id(node)]

    def children(self, node: yaml.Node) -> list[yaml.Node]:
        if isinstance(node, yaml.MappingNode):
            self.distinct(node)
            return [child for pair in node.value for child in pair]
        return list(node.value) if isinstance(node, yaml.SequenceNode) else []

    def kind(self, node: yaml.Node) -> None:
        if node.tag not in {*KINDS, MERGE}:
            kind = "date" if node.tag.endswith(":timestamp") else shortened(node.tag.removeprefix("tag:yaml.org,2002:"))
            value = shortened(node.value) if isinstance(node, yaml.ScalarNode) else "a value"
            raise ValueError(
                f"{self.at(node)}: {value} is read as a {kind}, which has no place here; write it in quotes"
            )
        if isinstance(node, yaml.ScalarNode) and UNREADABLE.search(node.value):
            raise ValueError(f"{self.at(node)}: {shortened(node.value)} holds a NUL or half a character; take it out")

    def distinct(self, node: yaml.MappingNode) -> None:
        lines: dict[Hashable, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                first = lines.setdefault((key.tag, key.value), key)
                if first is not key:
                    name, at = shortened(key.value), self.at(first)
                    raise ValueError(f"{self.at(key)}: the key {name} is written twice, first at {at}; keep one")

    def at(self, node: yaml.Node) -> str:
        return f"{self.place}:{node.start_mark.line + 1}" if self.numbered else self.place


def _problem(error: Exception) -> str:
    return clipped(str(error).replace('"<unicode string>", ', ""), 160)
