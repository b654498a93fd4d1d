"""The leaderboards of some sweeps: metrics in order, final scores in comparable groups, what is separable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from reports.numbers import MetricDisplay, metric
from reports.seeds import seeds_of_most
from reports.tables import CONTROLS, Row, Sweep, grouped, is_control, unique


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
class Arm:
    """What is ranked: a trainer with its options and training judge, over the seeds of its group; or what is untrained.

    Attributes:
        name: what the comparisons call it: a cell, or the id that several seeds share.
        label: what a reader calls it.
        rows: one a seed that has a value, in order; of an untrained policy its own.
        lacking: seeds of the group that it has no value of; such an arm is not ranked.
        value: the mean over the seeds (of the prompts that all of them have, where the tables have that).
        collapsed: seeds far below its other ones.
    """

    name: str
    label: str
    rows: tuple[Row, ...]
    lacking: tuple[int, ...] = ()
    value: float
    ci_low: float | None
    ci_high: float | None
    n: int | None
    collapsed: str = ""

    @property
    def judge(self) -> str:
        """The judge that trained it."""
        return str(self.rows[0]["judge"])

    @property
    def has_interval(self) -> bool:
        """Whether it has an interval."""
        return self.ci_low is not None and self.ci_high is not None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Final overall scores of one board's lead metric that may be compared: one sweep, start policy and grader.

    With the policy "" the untrained policies of the sweep, which then take the place of the arms.
    """

    sweep: Sweep
    board: Board
    policy: str
    grader: str
    rows: list[Row]

    @property
    def compared_by(self) -> tuple[str, str, str, str]:
        """(leaderboard, metric, task, grader) of its comparisons; the task is named where several have the metric."""
        board, lead = self.board, self.board.lead
        several = sum(metric.name == lead.name for metric in board.metrics) > 1
        return board.name, lead.name, lead.category if several else "", self.grader

    @cached_property
    def is_exact(self) -> bool:
        """Whether no row of the group has an interval: nothing was drawn."""
        return all(row["ci_low"] is None for row in self.rows)

    @property
    def trained(self) -> list[Row]:
        """The rows of trained policies, best first."""
        return [row for row in self.ordered if not is_control(row)]

    @property
    def ordered(self) -> list[Row]:
        """All rows, best first, those without a value last."""
        return sorted(self.rows, key=best_first(self.board.lead))

    @cached_property
    def arms(self) -> list[Arm]:
        """The arms that have all seeds of the group, the best mean first."""
        complete = [arm for arm in self._every_arm if not arm.lacking]
        return sorted(complete, key=lambda arm: -arm.value * (self.board.lead.sign or 1))

    @property
    def incomplete(self) -> list[Arm]:
        """The arms that lack a seed of the group: shown and not ranked."""
        return [arm for arm in self._every_arm if arm.lacking]

    @property
    def ranked(self) -> list[Arm]:
        """The arms and the controls."""
        return self.arms + [arm for arm in map(self.control, CONTROLS) if arm is not None]

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that the arms are compared over."""
        return seeds_of_most(
            [row["seed"] for row in rows] for rows in self._seeds_by_arm if rows[0]["seed"] is not None
        )

    def control(self, trainer: str) -> Arm | None:
        """A control (`sft`, `constant`, `longest`), if it has a score."""
        wanted = (row for row in self.rows if self.policy and is_control(row) and row["trainer"] == trainer)
        return next((self._arm((row,)) for row in wanted if row["value"] is not None), None)

    @property
    def _seeds_by_arm(self) -> list[list[Row]]:
        rows = [row for row in self.rows if row["value"] is not None and (not is_control(row) or not self.policy)]
        info = self.sweep.info
        return list(grouped(rows, lambda row: (row["policy"], info[row["cell"]]["label"], row["judge"])).values())

    @cached_property
    def _every_arm(self) -> list[Arm]:
        return [self._over_seeds(rows) for rows in self._seeds_by_arm]

    def _over_seeds(self, rows: Sequence[Row]) -> Arm:
        row_of = {row["seed"]: row for row in rows}
        lacking = tuple(seed for seed in self.seeds if seed not in row_of)
        if lacking or not self.seeds:
            return replace(self._arm(tuple(rows)), lacking=lacking)
        return self._arm(tuple(row_of[seed] for seed in self.seeds))

    def _arm(self, rows: tuple[Row, ...]) -> Arm:
        first, sweep = rows[0], self.sweep
        if len(rows) == 1:
            name, label, of = first["cell"], sweep.display_name(first["cell"]), first
        else:
            name = sweep.algorithm_of.get(first["cell"], "")
            label = " · ".join((sweep.info[first["cell"]]["label"], first["judge"]))
            of = sweep.means.get((self.compared_by, name), {})
            if of.get("seeds") != ", ".join(str(row["seed"]) for row in rows) or of["value"] is None:
                of = {"value": sum(row["value"] for row in rows) / len(rows), "n": first["n"]}
        return Arm(
            name=name,
            label=label,
            rows=rows,
            value=of["value"],
            ci_low=of.get("ci_low"),
            ci_high=of.get("ci_high"),
            n=of["n"],
            collapsed=of.get("collapsed", ""),
        )


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


def groups(sweeps: Sequence[Sweep], board: Board) -> list[Group]:
    """The comparable groups of a board's lead metric."""
    comparable = []
    for sweep in sweeps:
        wanted = (board.name, board.lead.name, board.lead.category)
        rows = [row for row in sweep.final if (row["leaderboard"], row["metric"], row["category"]) == wanted]
        for (policy, grader), members in grouped(rows, lambda row: (row["policy"], row["grader"])).items():
            comparable.append(Group(sweep=sweep, board=board, policy=policy, grader=grader, rows=members))
    return comparable


def untrained_groups(sweeps: Sequence[Sweep], board: Board) -> list[Group]:
    """The untrained policies of each sweep that has several and trains none, a group a grader."""
    found = []
    for sweep in sweeps:
        if any(not is_control(row) for row in sweep.info.values()):
            continue
        of_sweep = groups([sweep], board)
        for grader, members in grouped(of_sweep, lambda group: group.grader).items():
            rows = [row for group in members for row in group.rows if row["trainer"] == "sft"]
            if len(rows) > 1:
                found.append(Group(sweep=sweep, board=board, policy="", grader=grader, rows=rows))
    return found


def alpha(rows: Sequence[Row]) -> float:
    """The level of the tests: 1 - ci_level of the rows, .05 where they say nothing."""
    level = next((row["ci_level"] for row in rows if row.get("ci_level")), 0.95)
    return round(1 - level, 10)


def significant(comparison: Row, level: float) -> bool:
    """Whether a comparison is separable from zero: by its adjusted p-value, else its p-value, else its interval."""
    if comparison.get("difference") == 0:
        return False  # it has no side
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
    return group.sweep.compared.get((*group.compared_by, claim), [])


def graders(sweeps: Sequence[Sweep]) -> list[str]:
    """The graders in order of first appearance."""
    return unique(row["grader"] for sweep in sweeps for row in sweep.results if row["grader"])
