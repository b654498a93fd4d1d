"""Our own modules as data: what each defines, what it imports, and which modules that reaches."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from judges.code_syntax import ROOMS, digest, is_inert, parse

ROOT = Path(__file__).resolve().parents[1]
LEAVES = ("trainers.algorithms", "judges.kinds", "judges.protocols", "leaderboards.boards")
"""Where algorithms, judges, protocols and boards live. All else of ours is machinery, which has version numbers."""


class Import(NamedTuple):
    """`from module import name as local`; the module itself where `name` is None, all it has where it is `*`."""

    local: str
    module: str
    name: str | None


@dataclass(frozen=True, eq=False)
class Module:
    """A module's syntax tree, its import name, and whether it is a package."""

    name: str
    tree: ast.Module
    is_package: bool = False

    @property
    def room(self) -> str:
        """The top-level package."""
        return self.name.partition(".")[0]

    @property
    def is_leaf(self) -> bool:
        """Whether it holds leaf code."""
        return self.name.startswith(tuple(f"{leaf}." for leaf in LEAVES))

    @cached_property
    def bindings(self) -> dict[str, list[ast.stmt]]:
        """Name -> the top-level statements that bind it and do nothing else."""
        bindings: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for name in bound_names(statement):
                bindings.setdefault(name, []).append(statement)
        return bindings

    @cached_property
    def effects(self) -> list[ast.stmt]:
        """The other top-level statements, which run whatever is used of the module."""
        inert = [statement for statement in self.tree.body if is_inert(statement) or is_for_type_checking(statement)]
        return [statement for statement in self.tree.body if statement not in inert and not bound_names(statement)]

    @cached_property
    def exports(self) -> dict[str, Import]:
        """What a package imports to hand it on, blocks for type checkers included: ours import lazily."""
        statements = (node for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom))
        return {imported.local: imported for node in statements for imported in self.imports_of(node)}

    def imports_of(self, node: ast.AST) -> Iterator[Import]:
        """What a node imports, at any depth, blocks for type checkers left out."""
        for inner in walk(node):
            if isinstance(inner, ast.Import):
                for alias in inner.names:
                    yield Import(alias.asname or alias.name.partition(".")[0], alias.name, None)
            elif isinstance(inner, ast.ImportFrom):
                source = self._absolute(inner)
                yield from (Import(alias.asname or alias.name, source, alias.name) for alias in inner.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parent = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*parent, *([node.module] if node.module else [])])


def bound_names(statement: ast.stmt) -> list[str]:
    """The names that a definition, an import or a plain assignment binds; none for any other statement."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in statement.names if alias.name != "*"]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    names = [name for target in targets for name in (target.elts if isinstance(target, ast.Tuple) else [target])]
    plain = [name.id for name in names if isinstance(name, ast.Name)]
    return plain if len(plain) == len(names) else []


@lru_cache(maxsize=16384)
def walk(node: ast.AST) -> tuple[ast.AST, ...]:
    """A node and all below it, without the bodies of blocks for type checkers."""
    nodes, stack = [], [node]
    while stack:
        inner = stack.pop()
        nodes.append(inner)
        if not is_for_type_checking(inner):
            stack.extend(ast.iter_child_nodes(inner))
    return tuple(nodes)


def is_for_type_checking(node: ast.AST) -> bool:
    """Whether it is `if TYPE_CHECKING:` without an else."""
    if not isinstance(node, ast.If) or node.orelse:
        return False
    name = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, "id", "")
    return name == "TYPE_CHECKING"


@cache
def our_module(name: str) -> Module | None:
    """A module of our rooms by its name; None where there is none. Read once in a process."""
    if name.partition(".")[0] not in ROOMS:
        return None
    place = ROOT.joinpath(*name.split("."))
    paths = [place.with_name(f"{place.name}.py"), place / "__init__.py"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    tree = parse(path.read_bytes())
    if tree is None:
        raise ValueError(f"{path} is no Python source; install nashbench again")
    return Module(name, tree, path.name == "__init__.py")


def resolve(target: Import) -> tuple[Module, str | None] | None:
    """The module of ours that an import means, and the name in it; None where it is not ours.

    The name is None where the module itself is meant. What a package only hands on is looked up where it comes from.
    """
    if target.name and (submodule := our_module(f"{target.module}.{target.name}")):
        return submodule, None
    module = our_module(target.module)
    if module is None:
        return None
    if target.name is None:
        return module, None
    handed_on = module.exports.get(target.name) if module.is_package else None
    return (handed_on and resolve(handed_on)) or (module, target.name)


def import_closure(module_names: Iterable[str], *, within: Collection[str] = ROOMS) -> dict[str, str]:
    """Module -> SHA-256 (hex) of its code, for each module that these reach by imports, themselves included.

    Imports count anywhere in a file, but in blocks for type checkers. Leaf code (`LEAVES`) is passed through and not
    listed: it enters keys by `code_identity`. A package's `__init__` counts where something is imported from it that it
    does not merely hand on.

    Args:
        within: the top-level packages that are followed.

    Raises:
        ValueError: one of the names is no module of ours.
    """
    reached: dict[str, Module] = {}
    pending = [(name, our_module(name)) for name in module_names]
    while pending:
        name, module = pending.pop()
        if module is None:
            raise ValueError(f"{name!r} is no module of {', '.join(ROOMS)}; give one such as 'trainers.fitting.fit'")
        if module.name in reached or module.room not in within:
            continue
        reached[module.name] = module
        targets = map(resolve, module.imports_of(module.tree))
        pending += [(target[0].name, target[0]) for target in targets if target]
    return {name: digest([module.tree]) for name, module in sorted(reached.items()) if not module.is_leaf}
