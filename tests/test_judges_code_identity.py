"""The hash of code: what changes it, what does not, and for whom.

Edits are made in a copy of the rooms and of plug-ins.
"""

from __future__ import annotations

import ast
import json
import py_compile
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edited_code import ROOT, copy_rooms, edit, edit_function, redocument, run

import leaderboards
import trainers
from judges import EnsembleJudge, Judge, LLMJudge, PanelJudge, code_modules
from judges.code_identity import _identity, code_identity
from judges.code_modules import import_closure
from judges.code_syntax import canonical, digest, parse
from judges.protocols.protocol import Protocol
from leaderboards import MTBench
from leaderboards.leaderboard import Leaderboard
from trainers import DPO, ONPO
from trainers.algorithm import Algorithm

BOARDS = ("AlpacaEval", "ArenaHard", "HeadToHead", "LMEval", "MTBench")
BOARD_FILES = {
    "AlpacaEval": "alpaca_eval",
    "ArenaHard": "arena_hard",
    "HeadToHead": "head_to_head",
    "LMEval": "lm_eval",
}
BOARD_FILES |= {"MTBench": "mt_bench"}
RULES, ASKING, GRADING = "rate by_prompt", "requests", "grade"
PLUGIN = '''
from dataclasses import dataclass

from trainers import INPO


@dataclass(frozen=True, kw_only=True)
class Mine(INPO):
    """Mine."""

    name = "mine"

    def loss(self, pair):
        return (pair.log_ratio("previous") - 0.1).square()
'''
ASK_PLUGIN = (
    "from {0} import Mine; from trainers.algorithm import Algorithm; from judges.code_identity import code_identity; "
    "print(code_identity(Mine, Algorithm))"
)


def survey() -> dict[str, str]:
    """The identities of all algorithms, the boards' parts and some judges."""
    names = [name for name in trainers.__all__ if name != "Algorithm"]
    identities = {name: code_identity(getattr(trainers, name), Algorithm) for name in names}
    for name in BOARDS:
        board = getattr(leaderboards, name)
        for entry in (RULES, ASKING, GRADING):
            if hasattr(board, entry.split()[0]):
                identities[f"{name}: {entry}"] = code_identity(board, Leaderboard, entry.split())
    for protocol in ("custom", "alpaca-eval", "arena-hard", "mt-bench"):
        judge = LLMJudge("m", base_url="http://localhost:1/v1", protocol=protocol)
        identities[f"llm {protocol}"] = judge.fingerprint()
    panel = PanelJudge(ROOT / "harness/pocket/panel.yaml")
    return identities | {"panel": panel.fingerprint(), "ensemble": EnsembleJudge([panel, panel]).fingerprint()}


def forget() -> None:
    """What a process remembers of code, as if it were a new one."""
    code_modules.our_module.cache_clear()
    _identity.cache_clear()


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """A copy of the rooms."""
    return copy_rooms(tmp_path / "copy")


@pytest.fixture
def changed(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], set[str]]]:
    """The names whose identity is another one by the sources in the copy."""
    forget()
    before = survey()
    monkeypatch.setattr(code_modules, "ROOT", rooms)

    def compare() -> set[str]:
        forget()
        after = survey()
        assert after.keys() == before.keys()
        return {name for name in before if after[name] != before[name]}

    yield compare
    forget()


# --- our own code ------------------------------------------------------------------------------------------------


def test_a_copy_elsewhere_with_other_docstrings_comments_and_layout_has_the_same_identities(
    rooms: Path, changed: Callable[[], set[str]]
) -> None:
    files = [
        file for folder in ("algorithms", "kinds", "protocols", "boards") for file in rooms.rglob(f"{folder}/*.py")
    ]
    assert len(files) > 30
    for file in files:
        redocument(file)
    assert changed() == set()


def test_a_process_that_imports_another_copy_finds_the_same_identities_and_sees_an_edit(rooms: Path) -> None:
    ask = "import json, test_judges_code_identity as test; print(json.dumps(test.survey()))"
    forget()
    identities = survey()
    edit_function(rooms / "trainers/algorithms/onpo.py", "loss")
    elsewhere = json.loads(run(ask, rooms, Path(__file__).parent))
    assert elsewhere.pop("ONPO") != identities.pop("ONPO")
    assert elsewhere == identities


def test_editing_onpos_loss_changes_onpo_alone(rooms: Path, changed: Callable[[], set[str]]) -> None:
    edit_function(rooms / "trainers/algorithms/onpo.py", "loss")
    assert changed() == {"ONPO"}


@pytest.mark.parametrize(
    ("file", "function", "names"),
    [
        ("contrastive", "schedule", {"DPO", "IPO", "SLiC", "SimPO"}),
        ("policy_gradient", "loss", {"NashMD", "RL", "SelfPlay"}),
    ],
)
def test_editing_a_shared_page_changes_the_algorithms_that_rest_on_it(
    rooms: Path, changed: Callable[[], set[str]], file: str, function: str, names: set[str]
) -> None:
    edit_function(rooms / f"trainers/algorithms/{file}.py", function)
    assert changed() == names


def test_an_import_of_a_page_by_another_makes_it_rest_on_it(rooms: Path) -> None:
    edit(
        rooms / "trainers/algorithms/inpo.py",
        "if TYPE_CHECKING:",
        "from trainers.algorithms import contrastive\n\nif TYPE_CHECKING:",
    )
    ask = ASK_PLUGIN.replace("Mine", "INPO").format("trainers")
    first = run(ask, rooms)
    edit_function(rooms / "trainers/algorithms/contrastive.py", "schedule")
    assert run(ask, rooms) != first


def test_machinery_is_in_no_identity(rooms: Path, changed: Callable[[], set[str]]) -> None:
    for name in (
        "trainers/algorithm.py",
        "judges/judge.py",
        "judges/transports/endpoint.py",
        "leaderboards/grading.py",
    ):
        with (rooms / name).open("a") as file:
            file.write("\nEDITED = 1\n")
    assert changed() == set()


def test_editing_rate_changes_the_rule_of_each_board_and_neither_its_questions_nor_its_grading(
    rooms: Path, changed: Callable[[], set[str]]
) -> None:
    for name in BOARD_FILES.values():
        edit_function(rooms / f"leaderboards/boards/{name}.py", "rate")
    assert changed() == {f"{board}: {RULES}" for board in BOARDS}


def test_editing_grade_or_a_function_that_only_rating_calls_changes_that_alone(
    rooms: Path, changed: Callable[[], set[str]]
) -> None:
    edit_function(rooms / "leaderboards/boards/mt_bench.py", "_pooled")
    edit_function(rooms / "leaderboards/boards/head_to_head.py", "grade")
    edit(rooms / "leaderboards/boards/arena_hard.py", "DECISIVE_WEIGHT = 3", "DECISIVE_WEIGHT = 4")
    edit(rooms / "leaderboards/boards/mt_bench.py", '"writing": 0.7', '"writing": 0.8')
    expected = {f"MTBench: {RULES}", "MTBench: requests", "HeadToHead: grade", "ArenaHard: grade"}
    assert changed() - {f"ArenaHard: {RULES}"} == expected


def test_what_every_object_runs_when_it_is_made_counts_for_all_of_it(
    rooms: Path, changed: Callable[[], set[str]]
) -> None:
    edit_function(rooms / "leaderboards/boards/mt_bench.py", "__post_init__")
    assert changed() == {f"MTBench: {entry}" for entry in (RULES, ASKING, GRADING)}


def test_an_options_default_counts_only_where_the_code_reads_it(rooms: Path, changed: Callable[[], set[str]]) -> None:
    edit(rooms / "leaderboards/boards/alpaca_eval.py", '"both"] = "one"', '"both"] = "both"')
    # The option is checked when a board is made, so that here every entry reads it; a new one is read by none.
    assert changed() == {f"AlpacaEval: {entry}" for entry in (RULES, ASKING, GRADING)}
    edit(
        rooms / "leaderboards/boards/head_to_head.py",
        '    name = "head-to-head"',
        '    new: int = 0\n\n    name = "head-to-head"',
    )
    assert not any(name.startswith("HeadToHead") for name in changed())


DYNAMIC = """
from leaderboards.leaderboard import Leaderboard


class Odd(Leaderboard):
    def lookup(self, name):
        return getattr(self, name)

    def named(self):
        return [getattr(self, name) for name in ("hidden",)]

    def plain(self):
        return 1

    def hidden(self):
        return 1
"""


def test_a_member_looked_up_by_a_name_that_nobody_can_tell_counts_as_reached(rooms: Path) -> None:
    odd = rooms / "leaderboards/boards/odd.py"
    ask = (
        "import json; from leaderboards.boards.odd import Odd; from leaderboards.leaderboard import Leaderboard; "
        "from judges.code_identity import code_identity; "
        "print(json.dumps([code_identity(Odd, Leaderboard, [name]) for name in ('lookup', 'named', 'plain')]))"
    )
    odd.write_text(DYNAMIC)
    lookup, named, plain = json.loads(run(ask, rooms))
    edit_function(odd, "hidden")
    assert [a == b for a, b in zip(json.loads(run(ask, rooms)), (lookup, named, plain), strict=True)] == [
        False,
        False,
        True,
    ]


def test_members_that_only_machinery_calls_back_count_as_reached(rooms: Path) -> None:
    odd = rooms / "leaderboards/boards/odd.py"
    odd.write_text(
        DYNAMIC.replace("(Leaderboard)", "(Leaderboard)") + "\n    def check(self):\n        return super().check()\n"
    )
    edit(
        rooms / "leaderboards/leaderboard.py",
        "    def check(self) -> None:  # noqa: B027\n",
        "    def check(self) -> None:\n        self.hidden()\n\n    def other(self) -> None:\n",
    )
    ask = (
        "from leaderboards.boards.odd import Odd; from leaderboards.leaderboard import Leaderboard; "
        "from judges.code_identity import code_identity; print(code_identity(Odd, Leaderboard, ['check']))"
    )
    first = run(ask, rooms)
    edit_function(odd, "plain")
    assert run(ask, rooms) == first
    edit_function(odd, "hidden")
    assert run(ask, rooms) != first


def test_a_class_of_another_base_and_a_member_that_is_not_there_are_errors() -> None:
    with pytest.raises(TypeError, match="ONPO is not derived from Judge"):
        code_identity(ONPO, Judge)
    with pytest.raises(ValueError, match="MTBench has no member rates"):
        code_identity(MTBench, Leaderboard, ["rates"])
    assert code_identity(ONPO, Algorithm) != code_identity(DPO, Algorithm)


# --- judges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "function", "names"),
    [
        ("protocols/mt_bench.py", "_find", {"llm mt-bench"}),
        ("protocols/alpaca_eval.py", "request", {"llm alpaca-eval"}),
        ("protocols/reading.py", "one_verdict", {"llm mt-bench", "llm arena-hard"}),
        ("kinds/llm.py", "_answer", {"llm custom", "llm alpaca-eval", "llm arena-hard", "llm mt-bench"}),
        ("kinds/panel.py", "_gain", {"panel", "ensemble"}),
        ("kinds/ensemble.py", "_mix", {"ensemble"}),
    ],
)
def test_editing_a_judge_or_parser_changes_the_judges_that_use_it(
    rooms: Path, changed: Callable[[], set[str]], file: str, function: str, names: set[str]
) -> None:
    edit_function(rooms / "judges" / file, function)
    assert changed() == names


def test_what_a_judge_is_described_by_is_json_without_code_tuning_or_defaults() -> None:
    asked = {"model": "m", "base_url": "http://localhost:1/v1"}
    judge = LLMJudge(**asked, protocol="mt-bench", timeout=1.0, max_retries=9)
    described = judge.described()
    assert described["class"] == "judges.LLMJudge"
    address = {"base_url": asked["base_url"]}
    assert described["options"] == {
        "model": "m",
        "protocol": {"class": "MTBenchProtocol", "options": {}, "brings": None},
        "transport": {"class": "ChatCompletions", "options": address, "brings": None},
    }
    assert json.loads(json.dumps(described)) == described
    assert judge.fingerprint() == LLMJudge(**asked, protocol="mt-bench").fingerprint()
    assert judge.code_parts[0].__name__ == "MTBenchProtocol"
    assert issubclass(judge.code_parts[0], Protocol)


def test_an_ensemble_is_described_by_its_members_and_weights() -> None:
    panel = PanelJudge(ROOT / "harness/pocket/panel.yaml")
    described = EnsembleJudge([panel, panel], [1, 3]).described()
    assert described["options"] == {"judges": [panel.described()] * 2, "weights": [0.25, 0.75]}


# --- plug-ins ----------------------------------------------------------------------------------------------------


def install(folder: Path, *, version: str = "0.1", package: Path | None = None) -> Path:
    """A package `mine` with a trainer and a data file; its metadata in `folder`, as an editable install leaves them."""
    home = (package or folder) / "mine"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("from mine.trainer import Mine\n")
    (home / "trainer.py").write_text(PLUGIN)
    (home / "table.csv").write_text("1,2\n")
    information = folder / "mine-0.1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mine\nVersion: {version}\n")
    (information / "entry_points.txt").write_text("[nashbench.trainers]\nmine = mine:Mine\n")
    return home


def test_a_plug_in_changes_with_its_code_its_data_and_its_version_and_with_nothing_else(tmp_path: Path) -> None:
    home = install(tmp_path / "site", package=tmp_path / "checkout")

    def identity() -> str:
        return run(ASK_PLUGIN.format("mine"), tmp_path / "checkout", tmp_path / "site", ROOT)

    identities = [identity()]
    redocument(home / "trainer.py")
    (home / "__pycache__").mkdir()
    (home / "__pycache__" / "trainer.pyc").write_bytes(b"0")
    (home / ".hidden").write_text("0")
    assert identity() == identities[0]
    for file, old, new in [
        (home / "trainer.py", "0.1", "4.0"),
        (home / "table.csv", "1,2", "1,3"),
        (tmp_path / "site/mine-0.1.dist-info/METADATA", "Version: 0.1", "Version: 0.2"),
    ]:
        edit(file, old, new)
        identities.append(identity())
    (home / "unused.py").write_text("x = 1\n")
    identities.append(identity())
    assert len(set(identities)) == len(identities)


def test_two_equal_plug_ins_at_two_places_have_one_identity(tmp_path: Path) -> None:
    for place in ("a", "b"):
        install(tmp_path / place)
    asked = ASK_PLUGIN.format("mine")
    assert run(asked, tmp_path / "a", ROOT) == run(asked, tmp_path / "b", ROOT)


def test_a_plug_in_that_inherits_inpo_changes_with_inpo_and_not_with_dpo(tmp_path: Path, rooms: Path) -> None:
    install(tmp_path / "site")
    identities = [run(ASK_PLUGIN.format("mine"), tmp_path / "site", rooms)]
    for name in ("dpo", "inpo"):
        edit_function(rooms / f"trainers/algorithms/{name}.py", "loss")
        identities.append(run(ASK_PLUGIN.format("mine"), tmp_path / "site", rooms))
    assert identities[0] == identities[1] != identities[2]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_single_file_counts_by_itself_and_without_source_by_its_bytes(tmp_path: Path, compiled: bool) -> None:
    identities = []
    for target in ("0.1", "4.0", "4.0"):
        source = tmp_path / "mine.py"
        source.write_text(PLUGIN.replace("0.1", target))
        (tmp_path / "neighbour.py").write_text(f"x = {len(identities)}\n")
        if compiled:
            py_compile.compile(
                str(source), str(tmp_path / "mine.pyc"), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )
            source.unlink()
        identities.append(run(ASK_PLUGIN.format("mine"), tmp_path, ROOT))
    assert identities[0] != identities[1] == identities[2]


def test_a_class_without_any_file_counts_by_its_compiled_functions() -> None:
    ask = PLUGIN + ASK_PLUGIN.partition("; ")[2]
    identities = [run(ask.replace("0.1", target), ROOT) for target in ("0.1", "4.0", "0.1")]
    assert identities[0] == identities[2] != identities[1]


def test_a_plug_in_on_another_plug_in_changes_with_its_files_and_on_a_library_with_its_version(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    home, information = install(installed), installed / "library-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: library\nVersion: 1\n")
    (information / "top_level.txt").write_text("library\n")
    (installed / "library.py").write_text("class Library:\n    x = 1\n")
    (tmp_path / "theirs.py").write_text(
        "from mine import Mine as Base\nfrom library import Library\n\n\nclass Mine(Base, Library):\n    pass\n"
    )

    def identity() -> str:
        return run(ASK_PLUGIN.format("theirs"), installed, tmp_path, ROOT)

    identities = [identity()]
    edit(installed / "library.py", "x = 1", "x = 2")
    assert identity() == identities[0]
    for file, old, new in [
        (information / "METADATA", "Version: 1", "Version: 2"),
        (home / "trainer.py", "0.1", "4.0"),
    ]:
        edit(file, old, new)
        identities.append(identity())
    assert len(set(identities)) == 3


# --- the walker --------------------------------------------------------------------------------------------------

SOURCE = '''\
"""A docstring."""

from __future__ import annotations

import os.path as p
from judges.kinds.llm import LLMJudge as J  # a room's name alone counts


@dec(1, *a, k=2, **b)
class C(Base, metaclass=M):
    """Another."""

    x: int = 10**30 + 0x10 - 1_000
    "A text below an attribute."
    y = {None: 1, **z, "é": b"\\x00", "\\ud800": 1e-7, "\\u1c89": 2j}

    async def f(self, a, /, b: int = 1, *c, d=..., **e) -> None:
        """Another."""
        async with g as h, i:
            pass
        return [k async for k in l if k] or (yield)


def text(a, w):
    one = f"a" "b{{" f"{a!r:>{w}}" "}}" f"{a:%Y-%m}" 'c'
    two = f"{a=}" f"" f"{a:}" rf"\\d{a}\\d"
    three = f"{f'{a}' + 'x'}{w:{'>'}{w}.{w}f}"
    try:
        assert one < two <= three, "message"
    except* (A, B) as error:
        raise X from error
    else:
        del one, two[1:2, ::3]
    match a:
        case {"k": [1, *_], **rest} | C(x=0) if (n := w) > -1.5:
            global t
        case None | True:
            return lambda *, q=0: (q, not q)
    while True:
        break
'''


def test_the_hash_of_a_source_is_the_same_in_every_python() -> None:
    tree = parse(SOURCE.encode())
    assert tree is not None
    assert digest([tree]) == "5a0a6c59d8de1a9221607f42f96c26406bb4b115fedb00d39465d7b1b48c80ff"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = True"),
        ("x = 1", "x = 1.0"),
        ("x = '1'", "x = b'1'"),
        ("x = None", "x = 'None'"),
        ("x = a, b", "x = [a, b]"),
        ("f(a, b)", "f(a, *b)"),
        ("f(a=b)", "f(**{'a': b})"),
        ("{**a, b: c}", "{a: b, **c}"),
        ("def f(a, *, b): ...", "def f(a, b): ..."),
        ("def f(*, a=1, b): ...", "def f(*, a, b=1): ..."),
        ("if a:\n b()\nelse:\n pass", "if a:\n pass\nelse:\n b()"),
        ("x = f'{a}b'", "x = f'a{b}'"),
        ("x = f'{a!r}'", "x = f'{a!s}'"),
        ("x = f'{a:>3}'", "x = f'{a:>4}'"),
        ("x = 'a', 'b'", "x = 'a' 'b'"),
        ("from math import log", "from numpy import log"),
        ("from .a import x", "from ..a import x"),
        ("a = b = c", "a = c\nb = c"),
        ("async def f(): ...", "def f(): ..."),
    ],
)
def test_sources_that_differ_in_what_they_do_have_different_texts(one: str, other: str) -> None:
    assert canonical([ast.parse(one)]) != canonical([ast.parse(other)])


def test_sources_that_differ_in_words_and_layout_have_one_text() -> None:
    one = "def f(a,\n      b=(1)):\n    'doc'\n    pass\n    x = f'a' 'b'  # why\n    return (x)\n"
    assert canonical([ast.parse(one)]) == canonical([ast.parse("def f(a, b=1):\n  x = f'ab'\n  return x")])
    moved = [ast.parse(f"from judges.{place} import Judge") for place in ("judge", "elsewhere.judge")]
    assert canonical([moved[0]]) == canonical([moved[1]])


def test_code_that_nests_deeper_than_python_recurses_is_read() -> None:
    tree = ast.parse("x = " + " + ".join(["a"] * 2000))
    assert len(canonical([tree])) > 2000


# --- shared machinery --------------------------------------------------------------------------------------------


def test_a_closure_holds_what_is_imported_at_any_depth_and_no_leaf_code() -> None:
    closure = import_closure(["trainers.fitting.fit", "trainers.algorithms.dpo"])
    assert {"trainers.fitting.fit", "trainers.fitting.optimise", "trainers.algorithm"} <= {*closure}
    assert all(re.fullmatch("[0-9a-f]{64}", code) for code in closure.values())
    assert {name.partition(".")[0] for name in closure} == {"trainers"}
    assert not any(name.startswith("trainers.algorithms.") for name in closure)


def test_a_closure_passes_through_leaf_code_to_the_machinery_it_uses() -> None:
    closure = import_closure(["leaderboards.boards.arena_hard"])
    assert {"leaderboards.grading", "leaderboards.sources", "leaderboards.statistics.intervals", "judges.judge"} <= {
        *closure
    }
    assert "leaderboards.boards.arena_hard" not in closure
    within = import_closure(["leaderboards.boards.arena_hard"], within=["leaderboards"])
    assert {*within} == {name for name in closure if name.startswith("leaderboards.")}


def test_a_closure_leaves_out_what_only_a_type_checker_imports(tmp_path: Path, rooms: Path) -> None:
    (rooms / "trainers/odd.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trainers.games\n\n\n"
        "def f():\n    from judges import Judge\n    import trainers.options\n"
    )
    ask = "from judges.code_modules import import_closure; print(*import_closure(['trainers.odd']))"
    names = run(ask, rooms).split()
    assert {"trainers.odd", "trainers.options", "judges.judge"} <= {*names}
    assert not {"trainers.games", "judges", "trainers"} & {*names}


def test_a_closure_of_a_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'trainers\.fitting\.fitt' is no module"):
        import_closure(["trainers.fitting.fitt"])
