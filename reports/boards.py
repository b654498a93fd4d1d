"""The leaderboards of some sweeps: metrics in order, final scores in comparable groups, what is separable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports.numbers import Metric, metric
from reports.tables import Row, Sweep, grouped, is_control, unique


@dataclass(frozen=True, kw_only=True)
class Board:
    """One leaderboard over all sweeps.

    `metrics` come lead first: those with a direction before others, official ones first, then as the results have them.
    """

    name: str
    metrics: tuple[Metric, ...]

    @property
    def lead(self) -> Metric:
        """The metric that ranks the board."""
        return self.metrics[0]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Final overall scores of one board's lead metric that may be compared: one sweep, start policy and grader."""

    sweep: Sweep
    board: Board
    policy: str
    grader: str
    rows: list[Row]

    @property
    def trained(self) -> list[Row]:
        """The rows of trained policies, best first."""
        return [row for row in self.ordered if not is_control(row)]

    @property
    def ordered(self) -> list[Row]:
        """All rows, best first, those without a value last."""
        return sorted(self.rows, key=best_first(self.board.lead))

    def control(self, trainer: str) -> Row | None:
        """The row of a control (`sft`, `constant`, `longest`), if it was scored."""
        return next((row for row in self.rows if is_control(row) and row["trainer"] == trainer), None)


def boards(sweeps: Sequence[Sweep]) -> list[Board]:
    """Every leaderboard that has a score, in order of first appearance."""
    found: dict[str, dict[str, Metric]] = {}
    for sweep in sweeps:
        for row in sweep.results:
            of_board = found.setdefault(row["leaderboard"], {})
            if row["metric"] not in of_board:
                of_board[row["metric"]] = metric(row["metric"], sweep.meta(row["leaderboard"], row["metric"]))
    return [
        Board(name=name, metrics=tuple(sorted(metrics.values(), key=lambda m: (not m.sign, not m.official))))
        for name, metrics in found.items()
    ]


def best_first(lead: Metric) -> Callable[[Row], tuple[bool, float]]:
    """A sort key: better values first, rows without a value last."""

    def key(row: Row) -> tuple[bool, float]:
        value = row["value"]
        return (value is None, 0.0 if value is None else -value * (lead.sign or 1))

    return key


def median_first(lead: Metric) -> Callable[[Sequence[Row]], tuple[bool, float]]:
    """A sort key for the seeds of an arm: the better median first (of two the worse), without a value last."""

    def key(rows: Sequence[Row]) -> tuple[bool, float]:
        values = sorted(-row["value"] * (lead.sign or 1) for row in rows if row["value"] is not None)
        return (not values, values[len(values) // 2] if values else 0.0)

    return key


def groups(sweeps: Sequence[Sweep], board: Board) -> list[Group]:
    """The comparable groups of a board's lead metric."""
    found = []
    for sweep in sweeps:
        overall = (row for row in sweep.final if not row["category"])
        rows = [row for row in overall if (row["leaderboard"], row["metric"]) == (board.name, board.lead.name)]
        for (policy, grader), members in grouped(rows, lambda row: (row["policy"], row["grader"])).items():
            found.append(Group(sweep=sweep, board=board, policy=policy, grader=grader, rows=members))
    return found


def alpha(rows: Sequence[Row]) -> float:
    """The level of the tests: 1 - ci_level of the rows, .05 where they say nothing."""
    level = next((row["ci_level"] for row in rows if row.get("ci_level")), 0.95)
    return round(1 - level, 10)


def significant(comparison: Row, level: float) -> bool:
    """Whether a comparison is separable from zero: by its adjusted p-value, else its p-value, else its interval."""
    for key in ("p_adjusted", "p_value"):
        if comparison[key] is not None:
            return bool(comparison[key] < level)
    low, high = comparison["ci_low"], comparison["ci_high"]
    return low is not None and high is not None and not low <= 0 <= high


def oriented(comparison: Row, a: str) -> Row:
    """The comparison with `a` first: sides, difference and interval turned round where needed."""
    if comparison["a"] == a:
        return comparison
    turned = {
        "a": comparison["b"],
        "b": comparison["a"],
        "difference": _minus(comparison["difference"]),
        "ci_low": _minus(comparison["ci_high"]),
        "ci_high": _minus(comparison["ci_low"]),
    }
    return {**comparison, **turned}


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def comparisons(group: Group, claim: str) -> list[Row]:
    """The group's rows of the comparisons table that make a claim."""
    return group.sweep.compared.get((group.board.name, group.board.lead.name, group.grader, claim), [])


def versus(group: Group, a: str, b: str) -> Row | None:
    """The checkpoint comparison of two cells, `a` first, if the table has it."""
    row = group.sweep.paired.get((group.board.name, group.board.lead.name, group.grader, frozenset((a, b))))
    return None if row is None else oriented(row, a)


def better(group: Group, a: Row, b: Row) -> int:
    """+1 where a is separably better than b, -1 where worse, 0 where the two are not separable.

    Decided by the paired comparison where the table has one, else by intervals that do not overlap.
    """
    sign = group.board.lead.sign or 1
    paired = versus(group, a["cell"], b["cell"])
    if paired is not None and paired["difference"] is not None:
        return sign * _sign(paired["difference"]) if significant(paired, alpha(group.rows)) else 0
    if None in (a["ci_low"], a["ci_high"], b["ci_low"], b["ci_high"]):
        return 0
    return sign * ((a["ci_low"] > b["ci_high"]) - (a["ci_high"] < b["ci_low"]))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def ranks(group: Group) -> dict[str, tuple[int, int]]:
    """For each cell the ranks it may hold: 1 + those separably better, up to all but those separably worse.

    Where no row of the group has an interval, the order of the values is the rank; equal values share it.
    """
    rows = [row for row in group.ordered if row["value"] is not None]
    if all(row["ci_low"] is None for row in rows):
        values = [row["value"] for row in rows]
        return {row["cell"]: (1 + values.index(row["value"]),) * 2 for row in rows}
    verdicts = {row["cell"]: [better(group, row, other) for other in rows] for row in rows}
    return {cell: (1 + found.count(-1), len(rows) - found.count(1)) for cell, found in verdicts.items()}


def against_null(group: Group, row: Row) -> int:
    """+1 where the row's interval lies on the better side of the metric's null value, -1 on the worse, 0 otherwise."""
    null, sign = group.board.lead.null, group.board.lead.sign or 1
    if null is None or row["ci_low"] is None or row["ci_high"] is None:
        return 0
    return sign * ((row["ci_low"] > null) - (row["ci_high"] < null))


def against_start(group: Group, row: Row) -> int | None:
    """How a row stands to the untrained policy: +1, 0, -1; None where neither its score nor a null value tells."""
    start, null = group.control("sft"), group.board.lead.null
    if row["ci_low"] is None or row["ci_high"] is None:
        return None
    if start is None or (start["ci_low"] is None and start["value"] in (None, null)):
        return None if null is None else against_null(group, row)
    return better(group, row, start)


def graders(sweeps: Sequence[Sweep]) -> list[str]:
    """The graders in order of first appearance."""
    return unique(row["grader"] for sweep in sweeps for row in sweep.results if row["grader"])
