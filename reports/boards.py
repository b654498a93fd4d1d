"""The leaderboards of some sweeps: metrics in order, final scores in comparable groups, what is separable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from reports.numbers import MetricDisplay, metric
from reports.tables import Row, Sweep, grouped, is_control, unique


@dataclass(frozen=True, kw_only=True)
class Board:
    """One leaderboard over all sweeps.

    `metrics` come lead first: those with a direction before others, official ones first, then as the final results
    have them. A board that scores its tasks alone has a metric for each task.
    """

    name: str
    metrics: tuple[MetricDisplay, ...]

    @property
    def lead(self) -> MetricDisplay:
        """The metric that ranks the board."""
        return self.metrics[0]

    @property
    def views(self) -> list[Board]:
        """The board as each metric with a direction ranks it; the board itself first, and alone where none has one."""
        rest = [metric for metric in self.metrics[1:] if metric.sign]
        return [self, *(replace(self, metrics=(m, *(o for o in self.metrics if o != m))) for m in rest)]

    @property
    def is_of_tasks(self) -> bool:
        """Whether its metrics are of single tasks, without an overall score."""
        return bool(self.lead.category)


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
    metrics_by_board: dict[str, dict[tuple[str, str], MetricDisplay]] = {}
    for sweep in sweeps:
        for row in [*sweep.final, *sweep.results]:  # a metric of the last iteration alone may lead
            name, category = row["metric"], row["category"]
            metrics_of_board = metrics_by_board.setdefault(row["leaderboard"], {})
            metrics_of_board.setdefault((name, category), metric(name, sweep.meta(row["leaderboard"], name), category))
    return [Board(name=name, metrics=_ordered(list(metrics.values()))) for name, metrics in metrics_by_board.items()]


def _ordered(metrics: Sequence[MetricDisplay]) -> tuple[MetricDisplay, ...]:
    """The overall metrics, or those of single tasks where there is no overall one, the leading first."""
    overall = [metric for metric in metrics if not metric.category] or metrics
    return tuple(sorted(overall, key=lambda m: (not m.sign, not m.official)))


def compared(sweeps: Sequence[Sweep], board: Board) -> Board:
    """The board led by the metric whose values are compared prompt by prompt; as it is where none is."""
    compared_metrics = {(row["leaderboard"], row["metric"]) for sweep in sweeps for row in sweep.comparisons}
    return next((view for view in board.views if (board.name, view.lead.name) in compared_metrics), board)


def best_first(lead: MetricDisplay) -> Callable[[Row], tuple[bool, float]]:
    """A sort key: better values first, rows without a value last."""

    def key(row: Row) -> tuple[bool, float]:
        value = row["value"]
        return (value is None, 0.0 if value is None else -value * (lead.sign or 1))

    return key


def median_first(lead: MetricDisplay) -> Callable[[Sequence[Row]], tuple[bool, float]]:
    """A sort key for the seeds of an arm: the better median first (of two the worse), without a value last."""

    def key(rows: Sequence[Row]) -> tuple[bool, float]:
        values = sorted(-row["value"] * (lead.sign or 1) for row in rows if row["value"] is not None)
        return (not values, values[len(values) // 2] if values else 0.0)

    return key


def groups(sweeps: Sequence[Sweep], board: Board) -> list[Group]:
    """The comparable groups of a board's lead metric."""
    comparable = []
    for sweep in sweeps:
        wanted = (board.name, board.lead.name, board.lead.category)
        rows = [row for row in sweep.final if (row["leaderboard"], row["metric"], row["category"]) == wanted]
        for (policy, grader), members in grouped(rows, lambda row: (row["policy"], row["grader"])).items():
            comparable.append(Group(sweep=sweep, board=board, policy=policy, grader=grader, rows=members))
    return comparable


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
    """The checkpoint comparison of two cells, `a` first, if the table has it.

    Not where the board has several tasks with the metric: the table compares them together.
    """
    board = group.board
    if sum(metric.name == board.lead.name for metric in board.metrics) > 1:
        return None
    row = group.sweep.paired.get((board.name, board.lead.name, group.grader, frozenset((a, b))))
    return None if row is None else oriented(row, a)


def tested(group: Group, a: str, b: str) -> bool:
    """Whether `better` decides between two cells by their paired comparison, not by their intervals."""
    row = versus(group, a, b)
    return row is not None and row["difference"] is not None


def better(group: Group, a: Row, b: Row) -> int:
    """+1 where a is separably better than b, -1 where worse, 0 where the two are not separable.

    Decided by the paired comparison where the table has one, else by intervals that do not overlap: no test, and not
    corrected for the number of cells.
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
    return {cell: (1 + against.count(-1), len(rows) - against.count(1)) for cell, against in verdicts.items()}


def against_null(group: Group, row: Row) -> int:
    """+1 where the row's interval lies on the better side of the metric's null value, -1 on the worse, 0 otherwise."""
    null, sign = group.board.lead.null, group.board.lead.sign or 1
    if null is None or row["ci_low"] is None or row["ci_high"] is None:
        return 0
    return sign * ((row["ci_low"] > null) - (row["ci_high"] < null))


def start_is_null(group: Group) -> bool:
    """Whether a row's standing to the untrained policy is its standing to the null value."""
    start, null = group.control("sft"), group.board.lead.null
    return start is None or (start["ci_low"] is None and start["value"] in (None, null))


def against_start(group: Group, row: Row) -> int | None:
    """How a row stands to the untrained policy: +1, 0, -1; None where neither its score nor a null value tells."""
    start = group.control("sft")
    if row["ci_low"] is None or row["ci_high"] is None:
        return None
    if start is None or start_is_null(group):
        return None if group.board.lead.null is None else against_null(group, row)
    return better(group, row, start)


def tested_to_start(group: Group, row: Row) -> bool:
    """Whether a paired comparison says how a policy stands to the untrained one."""
    start = group.control("sft")
    return start is not None and not start_is_null(group) and tested(group, row["cell"], start["cell"])


def arms(group: Group) -> list[list[Row]]:
    """The trained rows by arm and training judge, a row a seed; the arm with the best median seed first."""
    rows = [row for row in group.trained if row["value"] is not None]
    seeds_by_arm = grouped(rows, lambda row: (group.sweep.info[row["cell"]]["arm"], row["judge"])).values()
    return sorted(seeds_by_arm, key=median_first(group.board.lead))


def by_prompt(group: Group) -> Group:
    """The same policies under the metric whose values are compared prompt by prompt; as it is where none is."""
    view = compared([group.sweep], group.board)
    counterparts = (g for g in groups([group.sweep], view) if (g.policy, g.grader) == (group.policy, group.grader))
    return group if view == group.board else next(counterparts, group)


def standings(group: Group) -> tuple[Group, dict[str, int | None]]:
    """Each trained cell's standing to the untrained policy, and the group whose metric tells it.

    That is the metric compared by prompt where it tests every cell against the untrained policy, else the board's own.
    """
    paired = by_prompt(group)
    cells = {row["cell"] for row in group.trained if row["value"] is not None}
    rows = [row for row in paired.trained if row["cell"] in cells]
    if {row["cell"] for row in rows} != cells or not all(tested_to_start(paired, row) for row in rows):
        paired, rows = group, [row for row in group.trained if row["value"] is not None]
    return paired, {row["cell"]: against_start(paired, row) for row in rows}


def graders(sweeps: Sequence[Sweep]) -> list[str]:
    """The graders in order of first appearance."""
    return unique(row["grader"] for sweep in sweeps for row in sweep.results if row["grader"])
