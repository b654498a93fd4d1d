"""A grader's verdicts on a policy's answers, and the scores they make."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.specs import ComponentSpec
from harness.stage import Facts, Stage
from harness.stages.answer import Answer, read_answers
from harness.stages.context import Context
from harness.stages.prompts import Prompts
from harness.stages.questions import board_requests
from harness.stages.text_metrics import style_figures


@dataclass(frozen=True, kw_only=True, eq=False)
class Grade(Stage):
    """`verdicts.parquet` and `scores.json`.

    Attributes:
        baseline: the untrained policy's answers, where the board compares with them.
    """

    kind = "grade"
    version = 6

    board: ComponentSpec
    judge: ComponentSpec
    answers: Answer
    prompts: Prompts
    temperature: float
    final: bool
    baseline: Answer | None = None

    def run(self, context: Context) -> Facts:
        import pandas as pd

        board, judge = context.board(self.board), context.judge(self.judge)
        answers = read_answers(context.read(self.answers))
        baseline = None if self.baseline is None else read_answers(context.read(self.baseline))
        requests = board_requests(context, self.board, self.prompts, self.temperature, final=self.final)
        verdicts = board.grade(requests, answers, baseline, judge)
        judge.check_losses()
        if verdicts and all(v["status"] != "ok" for v in verdicts):
            kinds = ", ".join(sorted({v["status"] for v in verdicts}))
            raise ValueError(f"the grader failed on all {len(verdicts)} answers ({kinds}); no score can be given")
        write_scores(context.out, board.rate(verdicts, self.seed))
        frame = pd.DataFrame([v | {"prompt": json.dumps(v["prompt"])} for v in verdicts])
        numbers = {name: "float64" for name in ("preference", "rating") if name in frame}
        frame.astype(numbers).to_parquet(context.out / "verdicts.parquet")
        return {"figures": style_figures(judge.inner, verdicts), "failures": dict(judge.failures)}


def read_verdicts(folder: Path) -> list[dict[str, Any]]:
    """A board's verdicts as it wrote them: what was None is None again."""
    import pandas as pd

    rows = pd.read_parquet(folder / "verdicts.parquet").to_dict("records")
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]  # type: ignore[misc]


def write_scores(folder: Path, scores: Sequence[Any]) -> None:
    """Write `scores.json`."""
    (folder / "scores.json").write_text(json.dumps([asdict(s) for s in scores], indent=1), encoding="utf-8")
