"""What a sweep's directory holds: the columns of every table and the fields of metrics.json, declared once.

The harness writes by these and the reports read by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        kind: `text` ("" for none), `number` (float64), `count` (a whole number) or `flag` (true or false); a number, a
            count or a flag may be missing.
        means: what it holds, with its unit.
    """

    name: str
    kind: Literal["text", "number", "count", "flag"]
    means: str


SWEEP = Column("sweep", "text", "name of the sweep")
CELL = Column("cell", "text", "id of the cell")
POLICY = Column("policy", "text", "the policy that training starts from")
TRAINER = Column("trainer", "text", "the algorithm with its options; sft, constant, longest for controls")
JUDGE = Column("judge", "text", 'the judge that trained the cell; "" for controls')
SEED = Column("seed", "count", "the cell's seed; none for controls")
ITERATION = Column("iteration", "count", "of training, 0 the untrained policy")
LEADERBOARD = Column("leaderboard", "text", "name of the leaderboard")
GRADER = Column("grader", "text", 'the judge that graded; "" where none did')
METRIC = Column("metric", "text", "name of the metric, described in metrics.json")
CI_LOW = Column("ci_low", "number", "low end of the interval")
CI_HIGH = Column("ci_high", "number", "high end of the interval")
P_VALUE = Column("p_value", "number", 'two-sided, of "no difference"')
P_ADJUSTED = Column(
    "p_adjusted", "number", "the same, adjusted (Holm) over its family: leaderboard, metric, task, grader and claim"
)
N = Column("n", "count", "prompts that the number rests on")

TABLES: dict[str, tuple[Column, ...]] = {
    "results": (
        SWEEP,
        CELL,
        POLICY,
        TRAINER,
        Column("options", "text", "the algorithm's options, JSON"),
        JUDGE,
        GRADER,
        SEED,
        ITERATION,
        LEADERBOARD,
        Column("category", "text", 'category or task that the score is of; "" for the overall one'),
        METRIC,
        Column("value", "number", "the score, in the metric's unit"),
        CI_LOW,
        CI_HIGH,
        Column("ci_level", "number", "level of the interval, in 0..1"),
        N,
        Column("coverage", "number", "share of the prompts that gave a verdict, in 0..1"),
        Column("samples", "count", "responses sampled in training up to this iteration"),
        Column("queries", "count", "comparisons asked of the training judge up to this iteration"),
        Column("steps", "count", "optimiser steps up to this iteration"),
        Column("tokens", "count", "tokens of these samples; none where an artifact of before did not count them"),
    ),
    "timings": (
        CELL,
        ITERATION,
        Column("seconds", "number", "that the training stages up to this iteration took, on the machines they ran on"),
    ),
    "comparisons": (
        LEADERBOARD,
        METRIC,
        GRADER,
        Column("a", "text", "a cell, or for the claim algorithm a cell's id without its seed"),
        Column("b", "text", "what a is compared with"),
        Column("difference", "number", "a minus b on the same prompts, in the metric's unit"),
        CI_LOW,
        CI_HIGH,
        P_VALUE,
        P_ADJUSTED,
        N,
        Column("claim", "text", "checkpoint: about these weights; algorithm: about training again"),
        Column("category", "text", 'task that is compared, where several have the metric; "" for all prompts'),
        Column("alike_low", "number", "low end of the interval if all trainers vary alike; never to claim by"),
        Column("alike_high", "number", "its high end"),
        Column("detectable", "number", "smallest difference that would be separable (power .8), where this one is not"),
        Column("prompts_needed", "number", "prompts that would settle this difference; inf: no number would"),
        Column("seeds_needed", "number", "seeds that would settle it; inf: no number would"),
        Column("not_compared", "text", 'why a pair that the config names has no comparison; "" where it has one'),
    ),
    "algorithms": (
        LEADERBOARD,
        METRIC,
        GRADER,
        Column("category", "text", 'task, where several have the metric; "" for all prompts'),
        Column("algorithm", "text", "a cell's id without its seed"),
        Column("seeds", "text", "the seeds that the mean is over"),
        Column("value", "number", "the mean over seeds and the prompts that all of them have, in the metric's unit"),
        CI_LOW,
        CI_HIGH,
        Column("ci_level", "number", "level of the interval, in 0..1"),
        N,
        Column("collapsed", "text", "seeds far below the algorithm's other ones"),
    ),
    "trials": (
        POLICY,
        TRAINER,
        JUDGE,
        LEADERBOARD,
        GRADER,
        METRIC,
        Column("trial", "count", "its number, from 1"),
        Column("options", "text", "what was tried, JSON: options of the algorithm and of training"),
        Column("status", "text", "ok; failed: it had no score when the choice was made; missing: there is no choice"),
        Column("value", "number", "its score on the prompts cut off for trials, which no other number rests on"),
        CI_LOW,
        CI_HIGH,
        N,
        Column("chosen", "flag", "whether the cells of this trainer and judge were trained with these options"),
    ),
    "dynamics": (
        SWEEP,
        CELL,
        POLICY,
        TRAINER,
        JUDGE,
        SEED,
        ITERATION,
        Column("phase", "count", "of the iteration, from 1; 0 for figures of a whole iteration"),
        Column("step", "count", "optimiser step of the phase, from 1; 0 for figures of a whole phase or iteration"),
        Column(
            "metric",
            "text",
            "loss, margin, ...; movement, target_slope; STAGE/COUNT, answers/FIGURE, style:NAME, alarm:NAME (0 or 1)",
        ),
        Column("value", "number", "the figure"),
    ),
    "judges": (
        Column("judge", "text", "a judge that the sweep trained"),
        Column("against", "text", 'the judge it is compared with; "" for its own figure'),
        METRIC,
        Column("value", "number", "the figure, or the difference judge minus against"),
        CI_LOW,
        CI_HIGH,
        N,
        Column("coverage", "number", "share of the held-out pairs that gave a verdict, in 0..1"),
        P_VALUE,
        P_ADJUSTED,
    ),
    "samples": (
        CELL,
        ITERATION,
        LEADERBOARD,
        GRADER,
        Column("prompt_id", "text", "id of the question"),
        Column("preference", "number", "P(the answer beats the baseline's), in 0..1"),
        Column("rating", "number", "of the answer by itself, 1..10"),
        Column("value", "number", "of a benchmark, in the unit of its metric"),
        Column("metric", "text", 'what value is of; "" for a preference or a rating'),
        Column("status", "text", "ok, or the kinds of failure"),
        Column("prompt", "text", "what was answered, JSON: a text or chat messages"),
        Column("response", "text", "the answer as it was graded"),
        Column("baseline_response", "text", "the answer or reference it was compared with"),
        Column("category", "text", "the board's category of the question"),
        Column("turn", "count", "of the conversation, from 1"),
        Column("stripped", "flag", "whether thinking was taken out of the answer"),
        Column("finished", "flag", "whether the policy ended the answer within its tokens"),
        Column("extra", "text", "what else the board keeps, JSON"),
    ),
}
"""Table -> its columns in order. `samples` is a folder with a file a cell; its columns from `preference` on are the
attributes of `leaderboards.GradedItem`.
"""

METRIC_FIELDS: dict[str, str] = {
    "unit": "probability, percent, share, characters, nats, ...",
    "better": "higher, lower or neither",
    "estimates": "the quantity in words",
    "official": "whether it is the authors' own figure, comparable with the published board",
    "null_value": "what a policy as good as the baseline scores; null where that is no number",
    "axis": "linear or log, how it is best drawn",
    "scale": "[lowest, highest] value; null where the unit implies them or there are none",
    "bounds": "[least, greatest] value that one prompt can have; null where there are none",
}
"""Field of an entry of metrics.json -> what it holds. An entry's key is LEADERBOARD/METRIC, or METRIC alone."""


def names(table: str) -> list[str]:
    """The columns of a table, in order."""
    return [column.name for column in TABLES[table]]


def of_kind(table: str, *kinds: str) -> list[str]:
    """The columns of a table that are of some kinds."""
    return [column.name for column in TABLES[table] if column.kind in kinds]
