"""A grader's verdicts on a policy's answers to one part of a board's questions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.specs import ComponentSpec
from harness.stage import Facts, Stage, not_in_seed
from harness.stages.answer import Answer, read_answers, read_flags
from harness.stages.context import Context
from harness.stages.prompts import Prompts, TuningPrompts
from harness.stages.questions import board_requests
from harness.stages.text_metrics import style_figures

if TYPE_CHECKING:
    from leaderboards.leaderboard import Part as QuestionPart


@dataclass(frozen=True, kw_only=True, eq=False)
class Grade(Stage):
    """`verdicts.parquet`.

    Attributes:
        board: as far as its grading goes.
        baseline: the untrained policy's answers, where the board compares with them.
    """

    kind = "grade"
    version = 8

    board: ComponentSpec
    judge: ComponentSpec
    answers: Answer
    prompts: Prompts | TuningPrompts
    temperature: float
    part: QuestionPart = not_in_seed()
    baseline: Answer | None = None

    def run(self, context: Context) -> Facts:
        from leaderboards.records import check_items, write_items

        board, judge = context.board(self.board), context.judge(self.judge)
        answers = read_answers(context.read(self.answers))
        baseline = None if self.baseline is None else read_answers(context.read(self.baseline))
        questions = board_requests(context, self.board, self.prompts, self.temperature, self.part)
        items = check_items(board.name, board.grade(questions, answers, baseline, judge)) if questions else []
        judge.check_losses()
        flags = read_flags(context.read(self.answers))
        items = [replace(item, **flags.get(item.id, {})) for item in items]  # type: ignore[arg-type]
        write_items(items, context.out / "verdicts.parquet")
        return {"figures": style_figures(judge.inner, items) if items else {}, "failures": dict(judge.failures)}
