"""Stages of evaluation: answers, grades, comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.stages.context import Context, Facts
from harness.stages.text_metrics import style_figures, text_figures
from judges.judge import Prompt, messages_of

if TYPE_CHECKING:
    from leaderboards.leaderboard import Request
    from trainers.policies.policy import Response

GREEDY = 1e-6  # a nucleus so small that only the likeliest token is left


def questions(context: Context) -> Facts:
    """A leaderboard's questions, checked against the context length; an earlier turn's answer is not known yet and
    counts as empty. The context length of a policy behind an endpoint is not known.
    """
    from leaderboards.leaderboard import conversation

    requests = _requests(context, last=True)
    if context.endpoint("policy"):
        return {"questions": len(requests)}
    policy, most = context.policy("policy"), context.options["max_tokens"]
    by_id, silent = {r.id: r for r in requests}, {r.id: [""] for r in requests}
    asked = [r.prompt if r.follows is None else conversation(r, by_id, silent) for r in requests]
    tokens, room = [len(policy.encode(prompt)) for prompt in asked], policy.context_length
    longest = max(range(len(tokens)), key=tokens.__getitem__)
    if room is not None and tokens[longest] + most > room:
        raise ValueError(
            f"question {requests[longest].id!r} has {tokens[longest]} tokens and sampling.max_tokens is {most}; the "
            f"policy's context holds {room}. Take the question out of the board's data or lower sampling.max_tokens"
        )
    return {"questions": len(requests), "longest": tokens[longest]}


def answer(context: Context) -> Facts:
    """A policy's answers to a leaderboard's requests, turn by turn; or a control's."""
    import pandas as pd

    requests = _requests(context, last=context.options["last"])
    answered = CONTROLS[context.options["control"]](context, requests)
    rows = [
        {"id": request.id, "number": number, "text": r.text, "tokens": r.tokens, "finished": r.finished}
        for request, _, responses in answered
        for number, r in enumerate(responses)
    ]
    pd.DataFrame(rows).to_parquet(context.out / "answers.parquet")
    return {"figures": _answer_figures(context, answered)}


def _answer_figures(context: Context, answered: Answered) -> dict[str, float]:
    """Signs of collapse, over the requests that every iteration has, so that iterations compare.

    `entropy` is of sampled answers alone, and is missing where all are greedy: these say nothing of it. Behind an
    endpoint there are no log-probabilities, so it and `start_nll` are missing.
    """
    curve = {request.id for request in _requests(context, last=False)}
    common = [said for said in answered if said[0].id in curve] or answered
    figures = text_figures([r.text for _, _, responses in common for r in responses])
    if context.options["control"] is not None or context.endpoint("policy"):
        return figures
    sampled = [said for said in common if said[0].temperature > 0]
    if sampled:
        figures["entropy"] = _nll(context, "policy", sampled)
    return figures | {"start_nll": _nll(context, "reference", common)}


Answered = list[tuple["Request", list[int], list["Response"]]]
"""Each request, the tokens of the conversation it was asked in, and the answers."""


def _by_policy(context: Context, requests: Sequence[Request]) -> Answered:
    """The policy's own answers; a later turn is asked after the policy's answer to the earlier one."""
    from leaderboards.leaderboard import conversation

    by_id = {request.id: request for request in requests}
    said = dict[str, list[str]]()
    found: dict[str, tuple[Request, list[int], list[Response]]] = {}
    alike = sorted(requests, key=_together)
    for (_, temperature, k), group in groupby(alike, key=_together):
        asked = list(group)
        prompts = [r.prompt if r.follows is None else conversation(r, by_id, said) for r in asked]
        drawn = _draw(context, [r.id for r in asked], prompts, k, temperature)
        for request, (tokens, responses) in zip(asked, drawn, strict=True):
            found[request.id] = (request, tokens, responses)
            said[request.id] = [r.text for r in responses]
    return [found[request.id] for request in requests]


def _together(request: Request) -> tuple[int, float, int]:
    """What requests have in common that are answered in one batch; turns in order."""
    return request.turn, request.temperature, request.answers


def _draw(
    context: Context, ids: Sequence[str], prompts: Sequence[Prompt], k: int, temperature: float
) -> list[tuple[list[int], list[Response]]]:
    """k answers to each prompt and the prompt's tokens, of which there are none behind an endpoint."""
    from trainers.engines.randomness import response_seeds

    seeds = response_seeds(context.stage.seed, ids)
    if endpoint := context.endpoint("policy"):
        from trainers.engines.engine import Decoding
        from trainers.engines.openai import sample_texts

        sampling = context.options["sampling"]
        decoding = Decoding(max_tokens=sampling["max_tokens"], temperature=temperature, top_p=sampling["top_p"])
        conversations = [messages_of(prompt) for prompt in prompts]
        drawn = sample_texts(endpoint, conversations, k, decoding, seeds, context.unfinished, context.report)
        return [([], responses) for responses in drawn]
    policy = context.policy("policy")
    encoded = [policy.encode(prompt) for prompt in prompts]
    return list(zip(encoded, policy.sample(encoded, k, _sampling(context, temperature), seeds), strict=True))


def _constant(context: Context, requests: Sequence[Request]) -> Answered:
    """One fixed answer to everything: the untrained policy's to the first request that it does not leave empty."""
    for request in requests:
        said = _by_policy(context, [request])[0]
        if said[2][0].text.strip():
            break
    return [(request, said[1], said[2][:1]) for request in requests]


def _longest(context: Context, requests: Sequence[Request]) -> Answered:
    """The longest of k answers of the untrained policy, in characters."""
    k, temperature = context.options["sampling"]["k"], context.options["temperature"]
    drawn = _draw(context, [r.id for r in requests], [r.prompt for r in requests], k, temperature)
    return [
        (request, tokens, [max(responses, key=lambda r: len(r.text))])
        for request, (tokens, responses) in zip(requests, drawn, strict=True)
    ]


CONTROLS = {None: _by_policy, "constant": _constant, "longest": _longest}


def grade(context: Context) -> Facts:
    """A grader's verdicts on a policy's answers, and the scores they make."""
    import pandas as pd

    board, judge = context.board(), context.judge()
    answers = _answers(context.input("answers"))
    baseline = _answers(context.input("baseline")) if board.baseline == "start" else None
    requests = _requests(context, last=context.options["last"])
    verdicts = board.grade(requests, answers, baseline, judge)
    judge.check_losses()
    if verdicts and all(v["status"] != "ok" for v in verdicts):
        kinds = ", ".join(sorted({v["status"] for v in verdicts}))
        raise ValueError(f"the grader failed on all {len(verdicts)} answers ({kinds}); no score can be given")
    _write_scores(context, board.rate(verdicts, context.stage.seed))
    frame = pd.DataFrame([v | {"prompt": json.dumps(v["prompt"])} for v in verdicts])
    numbers = {name: "float64" for name in ("preference", "rating") if name in frame}
    frame.astype(numbers).to_parquet(context.out / "verdicts.parquet")
    return {"figures": style_figures(judge.inner, verdicts), "failures": dict(judge.failures)}


def benchmark(context: Context) -> Facts:
    """A leaderboard that opens the checkpoint itself, and its scores."""
    import pandas as pd

    board = context.board()
    verdicts = board.evaluate(context.policy_path("policy"))
    _write_scores(context, board.rate(verdicts, context.stage.seed))
    frame = pd.DataFrame([v | {"prompt": json.dumps(v["prompt"])} for v in verdicts])
    frame.astype({"value": "float64", "response": "str"}).to_parquet(context.out / "verdicts.parquet")
    return {}


def compare(context: Context) -> Facts:
    """Paired comparisons between policies on the prompts they share."""
    from harness.tables.comparisons import Graded, aligned, compare_all

    board = context.board()
    by_metric: dict[str, dict[str, dict[str, float | None]]] = {}
    for known in context.options["cells"]:
        for metric, values in board.by_prompt(_read_verdicts(context.input(known["cell"]))).items():
            by_metric.setdefault(metric, {})[known["cell"]] = values
    rows = []
    for metric, cells in by_metric.items():
        values = aligned(cells)
        graded = [Graded(**known, values=values[known["cell"]]) for known in context.options["cells"]]
        rows += [{"metric": metric, **row} for row in compare_all(graded, context.stage.seed)]
    (context.out / "comparisons.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return {}


def _read_verdicts(folder: Path) -> list[dict[str, Any]]:
    """A board's verdicts as it wrote them: what was None is None again."""
    import pandas as pd

    rows = pd.read_parquet(folder / "verdicts.parquet").to_dict("records")
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]  # type: ignore[misc]


def _write_scores(context: Context, scores: Sequence[Any]) -> None:
    text = json.dumps([asdict(s) for s in scores], indent=1)
    (context.out / "scores.json").write_text(text, encoding="utf-8")


def _sampling(context: Context, temperature: float) -> Any:
    """The sweep's sampling at a request's temperature; 0 takes the likeliest token."""
    from trainers.options import Sampling

    chosen = {"temperature": temperature} if temperature > 0 else {"temperature": 1.0, "top_p": GREEDY}
    return Sampling.model_validate({**context.options["sampling"], **chosen})


def _requests(context: Context, *, last: bool) -> list[Request]:
    import pandas as pd

    frame = pd.read_parquet(context.input("prompts") / "prompts.parquet")
    held = frame[frame["split"] == "heldout"]
    prompts = [(id, json.loads(text)) for id, text in zip(held["id"], held["prompt"], strict=True)]
    return list(context.board().requests(prompts, context.options["temperature"], last=last))


def _answers(folder: Path) -> dict[str, list[str]]:
    import pandas as pd

    frame = pd.read_parquet(folder / "answers.parquet").sort_values("number", kind="stable")
    return {str(id): list(texts) for id, texts in frame.groupby("id", sort=False)["text"]}


def _nll(context: Context, name: str, answered: Answered) -> float:
    """Mean negative log-likelihood of the answers under a policy, nats a token.

    Under the policy that drew them at temperature 1 (and top_p 1) it estimates its entropy; colder, it lies below.
    """
    import torch

    policy, size = context.policy(name), 64
    rows = [(tokens, r.tokens) for _, tokens, responses in answered for r in responses]
    total = 0.0
    with torch.no_grad():
        for i in range(0, len(rows), size):
            prompts, tokens = zip(*rows[i : i + size], strict=True)
            total -= float(policy.log_probs(prompts, tokens).double().sum())
    return total / max(1, sum(len(tokens) for _, tokens in rows))
