"""Which definitions of leaf code are reached from a class, or from some of its members.

Names are followed definition by definition; where that is undecidable, the code is included. An attribute's name that
a member of the class has counts as that member, whatever it is an attribute of, but where a parameter is annotated with
another room's class.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from judges.code_modules import Import, Module, bound_names, our_module, resolve, walk
from judges.code_syntax import ROOMS, digest, is_inert, room_or_module

CHOSEN_AT_RUN_TIME = "judges.protocols."
"""A class from here is one of several that a judge may use: it counts by `Judge.code_parts`, not by an import."""

LOOKUPS = ("getattr", "setattr", "attrgetter", "methodcaller")
ANYTHING = ("eval", "exec", "globals", "locals", "vars")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class ClassSource:
    """A class of ours in its module; None as `node` where it is not at the module's top level."""

    module: Module
    node: ast.ClassDef | None

    @classmethod
    def of(cls, kind: type) -> ClassSource | None:
        """The source of a class; None where its module is not ours."""
        module = our_module(kind.__module__)
        if module is None:
            return None
        nodes = [node for node in module.bindings.get(kind.__qualname__, ()) if isinstance(node, ast.ClassDef)]
        return cls(module, nodes[-1] if nodes else None)

    def member(self, name: str) -> list[ast.stmt]:
        """The statements of the class that define a member."""
        return [statement for statement in self.node.body if name in bound_names(statement)] if self.node else []

    def names(self) -> set[str]:
        """The names of the members."""
        return {name for statement in self.node.body for name in bound_names(statement)} if self.node else set()

    def always(self) -> list[ast.AST]:
        """What counts whichever member is reached: bases, keywords, decorators, statements that define none."""
        if self.node is None:
            return []
        loose = [statement for statement in self.node.body if not (bound_names(statement) or is_inert(statement))]
        return [*self.node.bases, *self.node.keywords, *self.node.decorator_list, *loose]


@dataclass
class Reach:
    """The code that is reached, as a set of texts; `run` completes it.

    Attributes:
        classes: sources of the class and its ancestors whose members are told apart; none where all of them count.
    """

    classes: Sequence[ClassSource] = ()
    code: set[str] = field(default_factory=set)
    _seen: set[object] = field(default_factory=set)
    _pending: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._members = set[str]().union(*(source.names() for source in self.classes))

    def run(self) -> set[str]:
        """Follow all that is reached."""
        while self._pending:
            self._pending.pop()()
        return self.code

    def add_module(self, module: Module) -> None:
        """Every definition of a module."""
        for name in module.bindings:
            self.add_name(module, name)
        self._add_effects(module)

    def add_class_frame(self, source: ClassSource) -> None:
        """What counts of a class whichever member is reached; methods that Python itself calls are among it."""
        if source.node is None:
            self.add_module(source.module)
            return
        self._add_effects(source.module)
        self._take(source.module, source.always(), in_class=True)
        for name in source.names():
            if name.startswith("__"):
                self.add_member(name)

    def add_member(self, name: str) -> None:
        """Every definition of a member. One in machinery is looked through for other members, and is no leaf code."""
        if self._is_new(("member", name)):
            for source in self.classes:
                self._pending.append(partial(self._member, source, source.member(name)))

    def add_name(self, module: Module, name: str) -> None:
        """What a name of a module is bound to."""
        if self._is_new((module.name, name)):
            self._add_effects(module)
            self._pending.append(partial(self._name, module, module.bindings[name]))

    def add_import(self, module: Module, target: Import) -> None:
        """What an import brings: leaf code is followed, anything else counts by its name."""
        resolved = resolve(target)
        if resolved is None or not resolved[0].is_leaf or _is_chosen(module, *resolved):
            self.code.add(f"import {target.local} {room_or_module(target.module)} {target.name}")
            return
        source, name = resolved
        if name in source.bindings:
            self.code.add(f"import {target.local} {source.room} {name}")
            self.add_name(source, name)
        else:
            self.add_module(source)

    def _is_new(self, item: object) -> bool:
        is_new = item not in self._seen
        self._seen.add(item)
        return is_new

    def _add_effects(self, module: Module) -> None:
        if self._is_new(("effects", module.name)) and module.effects:
            self._take(module, module.effects)

    def _name(self, module: Module, statements: Sequence[ast.stmt]) -> None:
        definitions = [statement for statement in statements if not isinstance(statement, ast.Import | ast.ImportFrom)]
        for imported in (statement for statement in statements if statement not in definitions):
            for target in module.imports_of(imported):
                self.add_import(module, target)
        if definitions:
            self._take(module, definitions)

    def _member(self, source: ClassSource, statements: Sequence[ast.stmt]) -> None:
        if statements and source.module.is_leaf:
            self._take(source.module, statements, in_class=True)
        for statement in statements:
            self._follow_members(source.module, statement, in_class=True)

    def _take(self, module: Module, nodes: Sequence[ast.AST], *, in_class: bool = False) -> None:
        self.code.add(digest(nodes))
        for node in nodes:
            self._follow_names(module, node)
            self._follow_members(module, node, in_class=in_class)

    def _follow_names(self, module: Module, node: ast.AST) -> None:
        for inner in walk(node):
            if isinstance(inner, ast.Name) and inner.id in module.bindings:
                self.add_name(module, inner.id)
            elif isinstance(inner, ast.Import | ast.ImportFrom):
                for target in module.imports_of(inner):
                    self.add_import(module, target)
        if _calls(node, ANYTHING):
            self.add_module(module)

    def _follow_members(self, module: Module, node: ast.AST, *, in_class: bool) -> None:
        if not self.classes:
            return
        names = {inner.attr for inner in _own_attributes(module, node)} & self._members
        if in_class:
            names |= {inner.id for inner in _class_scope(node) if isinstance(inner, ast.Name)} & self._members
        if _calls(node, LOOKUPS):
            texts = {str(inner.value) for inner in walk(node) if isinstance(inner, ast.Constant)}
            names |= texts & self._members or self._members
        if _calls(node, ANYTHING):
            names = self._members
        for name in names:
            self.add_member(name)


def _is_chosen(module: Module, target: Module, name: str | None) -> bool:
    """Whether a module of ours imports a class that counts only where it is the one in use."""
    if module.room not in ROOMS or module.name.startswith(CHOSEN_AT_RUN_TIME):
        return False
    statements = target.bindings.get(name or "", [])
    return target.name.startswith(CHOSEN_AT_RUN_TIME) and any(
        isinstance(statement, ast.ClassDef) for statement in statements
    )


def _calls(node: ast.AST, names: Collection[str]) -> bool:
    """Whether a function of one of these names is called, or looked up in a module."""
    return any(
        (isinstance(inner, ast.Name) and inner.id in names)
        or (isinstance(inner, ast.Attribute) and inner.attr in names)
        for inner in walk(node)
    )


def _own_attributes(module: Module, node: ast.AST) -> Iterator[ast.Attribute]:
    """Attributes that may be of the class: not those of parameters that are of another room's class."""
    foreign = {
        id(inner)
        for function in walk(node)
        if isinstance(function, Function)
        for name in _foreign_parameters(module, function)
        for inner in walk(function)
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == name
    }
    return (inner for inner in walk(node) if isinstance(inner, ast.Attribute) and id(inner) not in foreign)


def _foreign_parameters(module: Module, function: Function) -> set[str]:
    """Parameters annotated with a class of another room, whose name stands for nothing else in the function."""
    parameters = [inner for inner in walk(function) if isinstance(inner, ast.arg)]
    names = [parameter.arg for parameter in parameters]
    names += [inner.id for inner in walk(function) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)]
    return {
        parameter.arg
        for parameter in parameters
        if names.count(parameter.arg) == 1 and _is_foreign(module, parameter.annotation)
    }


def _is_foreign(module: Module, annotation: ast.expr | None) -> bool:
    statements = module.bindings.get(annotation.id, []) if isinstance(annotation, ast.Name) else []
    rooms = {target.module.partition(".")[0] for target in _targets(module, statements, annotation)}
    return bool(rooms) and rooms <= {*ROOMS} - {module.room}


def _targets(module: Module, statements: Iterable[ast.stmt], annotation: ast.expr | None) -> Iterator[Import]:
    name = annotation.id if isinstance(annotation, ast.Name) else ""
    return (target for statement in statements for target in module.imports_of(statement) if target.local == name)


def _class_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a class's statement that run in the class: all but functions' bodies and annotations."""
    if isinstance(node, Function):
        defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]
        for part in [*node.decorator_list, *defaults]:
            yield from walk(part)
    else:
        yield from walk(node)
