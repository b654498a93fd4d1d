"""How far to trust a judge: its verdicts against human labels. Pure numpy."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judges.audit.agreement import (
    bootstrap,
    calibration_error,
    length_curve,
    length_difference,
    log_loss,
    matched_length,
    reliability,
)
from judges.audit.transitivity import transitivity
from judges.files import ORDERS, LabelledPair, Pair, Verdict
from judges.judge import Judge, Progress, messages_of
from judges.reading import shortened
from judges.runs import ProgressOffset, answer_queries, pair_queries, repetition
from judges.verdicts import OK

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NAMES = ("second", "tie", "first")
CLASSES = {name: number for number, name in enumerate(NAMES)}
RATIOS = (
    "accuracy",
    "accuracy_original",
    "accuracy_swapped",
    "accuracy_without_ties",
    "order_agreement",
    "flip_rate",
    "position_bias",
    "length_bias",
)
ASKED_ONCE = "every question was put once; ask several times to see how far a judge repeats itself"


def ask(judge: Judge, pairs: Sequence[Pair], *, repeats: int = 1, progress: Progress | None = None) -> list[Verdict]:
    """A judge's verdicts on pairs in both orders, each question put `repeats` times."""
    verdicts: list[Verdict] = []
    offset_progress = ProgressOffset(progress, 2 * repeats * len(pairs))
    for repeat in range(repeats):
        offset_progress.start = len(verdicts)
        verdicts += answer_queries(
            repetition(judge, repeat), list(pair_queries(pairs, repeat)), progress=offset_progress
        )
    return verdicts


def audit(labels: Sequence[LabelledPair], verdicts: Sequence[Verdict], *, seed: int = 0) -> dict[str, Any]:
    """Agreement of verdicts with people's labels, and the judge's biases.

    A pair's verdict is the class (first, second, tie) of its preference averaged over the orders given that did not
    fail, each the mean over its repeats; two orders that contradict each other with equal force are a tie. Pairs
    without a verdict are left out of all but `n` and `coverage`.

    Returns:
        `n`: labelled pairs; `prompts`: their distinct prompts. `coverage`: share of the verdicts given that did not
            fail; a pair without any counts as one that failed.
        `judged`: pairs with a verdict; `one_order_failed`: of these, pairs with a verdict in one order only because the
            other failed. `failures`: failed verdicts by kind.
        `accuracy`: share of pairs whose class is the label's. `accuracy_by_order`: the same for each order by itself;
        `accuracy_without_ties`: where neither is a tie. `kappa`: Cohen's, on the three classes.
        `order_agreement`: share of the pairs answered in both orders with one class in both; `flip_rate`: share with
            opposite winners; `position_bias`: over the same pairs, mean preference for the response placed first, less
            1/2.
        `length_bias`, `log_loss` (nats), `calibration_error`: see `judges.audit.agreement`; so `reliability` (the table
            behind the error), `matched_length` and `length_curve`.
        `intervals`: 95%, prompts resampled, of the figures above that are shares or means, `accuracy_original` and
            `accuracy_swapped` among them.
        `self_consistency`: over questions answered more than once, `agreement` (the chance that two repeats fall into
            one class), `spread` (standard deviation of the preference), `questions`; or the `reason` there is none.
        `transitivity`: of the `judge` and of the `labels`, see `judges.audit.transitivity`.
        `work`: `input_tokens`, `output_tokens`, `cost` (US$), `latency` (seconds summed over verdicts); None where none
            was recorded.
        A figure over no pairs is None.

    Raises:
        ValueError: a verdict about no labelled pair, or no labels.
    """
    case = _Case.of(labels, verdicts)
    without_verdict = len({pair.id for pair in labels} - {verdict.id for verdict in verdicts})
    mean, share, texts = case.mean, case.share, case.texts
    columns = np.concatenate([case.ratios(), case.confusion()], axis=1)
    prompt = _prompts(labels)
    by_prompt = np.array([np.bincount(prompt, weights=column) for column in columns.T], dtype=np.float64).T
    with np.errstate(invalid="ignore", divide="ignore"):
        values = dict(zip((*RATIOS, "kappa"), _figures(by_prompt.sum(axis=0, keepdims=True))[0].tolist(), strict=True))
    figures = {
        "n": len(labels),
        "prompts": int(prompt.max()) + 1,
        "coverage": sum(verdict.status == OK for verdict in verdicts) / (len(verdicts) + without_verdict),
        "judged": int((~np.isnan(mean)).sum()),
        "one_order_failed": case.half_failed(verdicts),
        "failures": dict(sorted(Counter(verdict.status for verdict in verdicts if verdict.status != OK).items())),
        **{name: value for name, value in values.items() if name not in ("accuracy_original", "accuracy_swapped")},
        "accuracy_by_order": {order: values[f"accuracy_{order}"] for order in ORDERS},
        "log_loss": log_loss(mean, share),
        "calibration_error": calibration_error(mean, share),
        "intervals": dict(zip(values, bootstrap(by_prompt, _figures, seed=seed).tolist(), strict=True)),
        "reliability": reliability(mean, share),
        "matched_length": matched_length(mean, share, *texts),
        "length_curve": length_curve(mean, share, *texts),
        "self_consistency": self_consistency(verdicts),
        "transitivity": {
            "judge": transitivity(labels, mean, seed=seed),
            "labels": transitivity(labels, share, seed=seed),
        },
        "work": _work(verdicts),
    }
    return {name: _plain(value) for name, value in figures.items()}


def self_consistency(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How consistent a judge's repeated answers are: see `audit`."""
    repeats: dict[tuple[str, str], list[float]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.status == OK:
            repeats[verdict.id, verdict.order].append(verdict.preference)
    several = [np.array(preferences) for preferences in repeats.values() if len(preferences) > 1]
    if not several:
        return {"questions": 0, "agreement": float("nan"), "spread": float("nan"), "reason": ASKED_ONCE}
    counts = [np.bincount(_classes(preferences), minlength=3) for preferences in several]
    return {
        "questions": len(several),
        "agreement": float(np.mean([(c * (c - 1)).sum() / (c.sum() * (c.sum() - 1)) for c in counts])),
        "spread": float(np.mean([preferences.std(ddof=1) for preferences in several])),
    }


def disagreements(
    labels: Sequence[LabelledPair], verdicts: Sequence[Verdict], *, most: int = 20
) -> list[dict[str, Any]]:
    """Pairs whose verdict's class is not the label's, the most confident ones first, at most `most`.

    Each has `id`, `prompt` (chat messages), `first`, `second`, `label`, `votes`, and `preference`, its mean and
    `original` and `swapped` (None where there is none).
    """
    case = _Case.of(labels, verdicts)
    wrong = np.flatnonzero(~np.isnan(case.mean) & (_classes(case.mean) != case.truth))
    ranked = wrong[np.argsort(-np.abs(case.mean - case.share)[wrong], kind="stable")][:most].tolist()
    return [
        {
            "id": labels[i].id,
            "prompt": messages_of(labels[i].prompt),
            "first": labels[i].first,
            "second": labels[i].second,
            "label": labels[i].label,
            "votes": list(labels[i].votes),
            "preference": float(case.mean[i]),
            **{order: _plain(float(preferences[i])) for order, preferences in case.by_order.items()},
        }
        for i in ranked
    ]


@dataclass(frozen=True)
class _Case:
    """Labels and verdicts side by side, a row a labelled pair."""

    labels: Sequence[LabelledPair]
    by_order: dict[str, Floats]
    mean: Floats
    truth: Ints
    share: Floats

    @classmethod
    def of(cls, labels: Sequence[LabelledPair], verdicts: Sequence[Verdict]) -> _Case:
        row_of = {pair.id: i for i, pair in enumerate(labels)}
        if not labels:
            raise ValueError("there are no labelled pairs to audit against")
        if unknown := next((verdict.id for verdict in verdicts if verdict.id not in row_of), None):
            raise ValueError(
                f"a verdict is about id {shortened(unknown)}, which no labelled pair has; are both files of the same "
                "pairs?"
            )
        preferences: dict[str, list[list[float]]] = {order: [[] for _ in labels] for order in ORDERS}
        for verdict in verdicts:
            if verdict.status == OK:
                preferences[verdict.order][row_of[verdict.id]].append(verdict.preference)
        by_order = {order: _means(column) for order, column in preferences.items()}
        both = [[p for p in row if not np.isnan(p)] for row in np.stack(list(by_order.values()), axis=1).tolist()]
        truth = np.array([CLASSES[pair.label] for pair in labels])
        return cls(labels, by_order, _means(both), truth, np.array([pair.share for pair in labels]))

    @property
    def texts(self) -> tuple[list[str], list[str]]:
        return [pair.first for pair in self.labels], [pair.second for pair in self.labels]

    def half_failed(self, verdicts: Sequence[Verdict]) -> int:
        failed = {verdict.id for verdict in verdicts if verdict.status != OK}
        one = np.isnan(self.by_order["original"]) != np.isnan(self.by_order["swapped"])
        return sum(bool(alone) and pair.id in failed for pair, alone in zip(self.labels, one, strict=True))

    def ratios(self) -> Floats:
        """Numerator and denominator of each of `RATIOS` for every pair: [pairs, 2 * ratios]."""
        original, swapped = self.by_order["original"], self.by_order["swapped"]
        decided = (self.truth != CLASSES["tie"]) & (self.mean != 0.5)
        classes = _classes(original), _classes(swapped)
        longer = np.sign(length_difference(*self.texts))
        terms = {
            "accuracy": self._right(self.mean),
            "accuracy_original": self._right(original),
            "accuracy_swapped": self._right(swapped),
            "accuracy_without_ties": np.where(decided, self._right(self.mean), np.nan),
            "order_agreement": np.where(np.isnan(original + swapped), np.nan, classes[0] == classes[1]),
            "flip_rate": np.where(np.isnan(original + swapped), np.nan, np.abs(classes[0] - classes[1]) == 2),
            "position_bias": (original - swapped) / 2,
            "length_bias": np.where(longer == 0, np.nan, longer * (self.mean - self.share)),
        }
        pairs = [(np.nan_to_num(terms[name]), ~np.isnan(terms[name])) for name in RATIOS]
        return np.stack([column for pair in pairs for column in pair], axis=1).astype(np.float64)

    def confusion(self) -> Floats:
        """One-hot (verdict's class, label's class) of every pair with a verdict: [pairs, 9]."""
        cell = 3 * _classes(self.mean) + self.truth
        return np.eye(9)[cell] * ~np.isnan(self.mean)[:, None]

    def _right(self, preference: Floats) -> Floats:
        return np.where(np.isnan(preference), np.nan, _classes(preference) == self.truth)


def _figures(sums: Floats) -> Floats:
    """`RATIOS` and Cohen's kappa [draws, figures] from sums over pairs [draws, columns]."""
    split = 2 * len(RATIOS)
    counts = sums[:, split:].reshape(-1, 3, 3)
    total = counts.sum(axis=(1, 2))
    chance = (counts.sum(axis=2) * counts.sum(axis=1)).sum(axis=1) / total**2
    agreement = np.trace(counts, axis1=1, axis2=2) / total
    kappa = np.where(chance < 1, (agreement - chance) / (1 - chance), np.nan)
    return np.column_stack([sums[:, 0:split:2] / sums[:, 1:split:2], kappa])


def _means(columns: Sequence[Sequence[float]]) -> Floats:
    """The mean of each column, NaN where it is empty; rounded so that .9 one way and .1 the other are an exact tie."""
    return np.array([np.mean(column).round(12) if column else np.nan for column in columns], dtype=np.float64)


def _classes(preference: Floats) -> Ints:
    """The class of each preference; meaningless for NaN."""
    return (np.sign(np.nan_to_num(preference, nan=0.5) - 0.5) + 1).astype(np.int64)


def _prompts(labels: Sequence[LabelledPair]) -> Ints:
    """The number of each pair's prompt among the distinct ones."""
    keys = [json.dumps(messages_of(pair.prompt)) for pair in labels]
    return np.unique(np.array(keys), return_inverse=True)[1]


def _work(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    names = ("input_tokens", "output_tokens", "cost", "latency")
    return {name: sum(getattr(verdict, name) for verdict in verdicts) or None for name in names}


def _plain(value: Any) -> Any:
    """NaN as None, so that the figures are JSON."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
