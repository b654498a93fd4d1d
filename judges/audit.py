"""How far to trust a judge: its verdicts against human labels. Pure numpy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judges.agreement import calibration_error, length_bias, log_loss
from judges.files import LabelledPair, Pair, Verdict
from judges.judge import Judge, Progress, messages_of

Floats = NDArray[np.float64]
CLASSES = {"second": 0, "tie": 1, "first": 2}
RESAMPLES = 2000


def ask(judge: Judge, pairs: Sequence[Pair], *, progress: Progress | None = None) -> list[Verdict]:
    """A judge's verdicts on pairs in both orders: all original ones, then all swapped ones."""
    columns = [[getattr(pair, name) for pair in pairs] for name in ("prompt", "first", "second")]
    record = judge.verdicts(*columns, both_orders=True, progress=progress)
    rows = zip(record.question.tolist(), record.order, record.preference.tolist(), record.status, strict=True)
    return [Verdict(pairs[question].id, order, preference, status) for question, order, preference, status in rows]


def audit(labels: Sequence[LabelledPair], verdicts: Sequence[Verdict], *, seed: int = 0) -> dict[str, Any]:
    """Agreement of verdicts with people's labels, and the judge's biases.

    A pair's verdict is the class (first, second, tie) of its preference averaged over the orders given; two orders that
    contradict each other with equal force are a tie. Pairs without a verdict are left out of all but `n` and
    `coverage`.

    Returns:
        `n`: labelled pairs. `coverage`: share of the verdicts given that did not fail, over one a pair at least.
        `accuracy`, with `accuracy_interval` (95%, prompts resampled): share of pairs whose class is the label's.
        `accuracy_by_order`: the same for each order by itself; `accuracy_without_ties`: where neither is a tie.
        `kappa`: Cohen's, on the three classes. `order_agreement`: share of the pairs answered in both orders with one
        class in both; `flip_rate`: share with opposite winners. `position_bias`: mean preference for the response
            placed
        first, less 1/2. `length_bias`, `log_loss` (nats) and `calibration_error`: see `judges.agreement`.
        A figure over no pairs is None.

    Raises:
        ValueError: a verdict about no labelled pair, or no labels.
    """
    place = {pair.id: i for i, pair in enumerate(labels)}
    if not labels:
        raise ValueError("there are no labelled pairs to audit against")
    if unknown := next((each.id for each in verdicts if each.id not in place), None):
        raise ValueError(f"a verdict is about id {unknown!r}, which no labelled pair has")
    by_order = {order: np.full(len(labels), np.nan) for order in ("original", "swapped")}
    for each in verdicts:
        by_order[each.order][place[each.id]] = each.preference
    mean = _mean_over_orders(by_order)
    truth = np.array([CLASSES[pair.label] for pair in labels])
    share = np.array([pair.share for pair in labels])
    texts = [pair.first for pair in labels], [pair.second for pair in labels]
    figures = {
        "n": len(labels),
        "coverage": float(sum(each.status == "ok" for each in verdicts) / max(len(verdicts), len(labels))),
        "accuracy": _agreement(mean, truth),
        "accuracy_interval": _interval(labels, mean, truth, seed),
        "accuracy_by_order": {order: _agreement(each, truth) for order, each in by_order.items()},
        "accuracy_without_ties": _agreement(mean, truth, ties=False),
        "kappa": _kappa(mean, truth),
        **_orders(by_order),
        "length_bias": length_bias(mean, share, *texts),
        "log_loss": log_loss(mean, share),
        "calibration_error": calibration_error(mean, share),
    }
    return {name: _plain(value) for name, value in figures.items()}


def _mean_over_orders(by_order: dict[str, Floats]) -> Floats:
    both = np.stack(list(by_order.values()))
    answered = ~np.isnan(both)
    count = answered.sum(axis=0)
    # Rounded so that .9 one way round and .1 the other are the tie that they are in exact arithmetic.
    total = np.where(answered, both, 0).sum(axis=0)
    return np.divide(total, count, out=np.full(both.shape[1], np.nan), where=count > 0).round(12)


def _classes(preference: Floats) -> NDArray[np.int64]:
    return (np.sign(preference - 0.5) + 1).astype(np.int64)


def _agreement(preference: Floats, truth: NDArray[np.int64], *, ties: bool = True) -> float:
    chosen = ~np.isnan(preference)
    if not ties:
        chosen &= (truth != CLASSES["tie"]) & (preference != 0.5)
    return _mean(_classes(preference[chosen]) == truth[chosen])


def _kappa(preference: Floats, truth: NDArray[np.int64]) -> float:
    answered = ~np.isnan(preference)
    if not answered.any():
        return float("nan")
    said, meant = _classes(preference[answered]), truth[answered]
    chance = float((np.bincount(said, minlength=3) / len(said)) @ (np.bincount(meant, minlength=3) / len(meant)))
    return (_mean(said == meant) - chance) / (1 - chance) if chance < 1 else float("nan")


def _orders(by_order: dict[str, Floats]) -> dict[str, float]:
    original, swapped = by_order["original"], by_order["swapped"]
    both = ~np.isnan(original) & ~np.isnan(swapped)
    classes = _classes(original[both]), _classes(swapped[both])
    placed_first = np.concatenate([original, 1 - swapped])
    return {
        "order_agreement": _mean(classes[0] == classes[1]),
        "flip_rate": _mean(np.abs(classes[0] - classes[1]) == 2),
        "position_bias": _mean(placed_first[~np.isnan(placed_first)] - 0.5),
    }


def _interval(labels: Sequence[LabelledPair], mean: Floats, truth: NDArray[np.int64], seed: int) -> list[float]:
    """95% percentile interval of the accuracy when prompts, with all their pairs, are drawn again."""
    answered = ~np.isnan(mean)
    keys = [json.dumps(messages_of(pair.prompt)) for pair in labels]
    prompt = np.unique(np.array(keys)[answered], return_inverse=True)[1]
    if len(prompt) == 0:
        return [float("nan")] * 2
    right = np.bincount(prompt, weights=_classes(mean[answered]) == truth[answered])
    size = np.bincount(prompt)
    drawn = np.random.default_rng(seed).integers(len(size), size=(RESAMPLES, len(size)))
    return np.quantile(right[drawn].sum(axis=1) / size[drawn].sum(axis=1), [0.025, 0.975]).tolist()


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _plain(value: Any) -> Any:
    """NaN as None, so that the figures are JSON."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
