"""Each loss against its formula, worked out by hand on two pairs, and what algorithms refuse."""

import math
from dataclasses import replace

import pytest
import torch

from trainers import DPO, INPO, IPOMD, OMD, ONPO, Algorithm, SLiC
from trainers.algorithm import PairBatch, PairValues, labelled_loss

CHOSEN, REJECTED = [-3.0, -7.0], [-4.5, -2.0]


def values(chosen: list[float], rejected: list[float]) -> PairValues:
    return PairValues(torch.tensor(chosen, dtype=torch.float64), torch.tensor(rejected, dtype=torch.float64))


BATCH = PairBatch(
    policy=values(CHOSEN, REJECTED),
    frozen={
        "reference": values([-3.5, -6.0], [-4.0, -2.5]),
        "previous": values([-2.0, -7.5], [-5.0, -1.0]),
        "auxiliary": values([-2.5, -6.5], [-4.0, -3.0]),
    },
    rewards={},
    lengths=values([3.0, 7.0], [5.0, 2.0]),
)
MARGIN, REFERENCE, PREVIOUS, AUXILIARY = (1.5, -5.0), (0.5, -3.5), (3.0, -6.5), (1.5, -3.5)
SAME = replace(BATCH, frozen=dict.fromkeys(BATCH.frozen, BATCH.policy))


def by_hand(formula: object) -> list[float]:
    """The formula of (margin, reference, previous, auxiliary) for both pairs."""
    assert callable(formula)
    return [formula(*row) for row in zip(MARGIN, REFERENCE, PREVIOUS, AUXILIARY, strict=True)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("algorithm", "formula"),
    [
        (ONPO(eta=3.0), lambda m, r, p, a: (m - a - 1.5) ** 2),
        (OMD(eta=3.0), lambda m, r, p, a: (m - p - 1.5) ** 2),
        (INPO(eta=0.5), lambda m, r, p, a: (m - r / 3 - 2 * p / 3 - 1) ** 2),
        (INPO(eta=0.5, tau=0.1), lambda m, r, p, a: (m - 0.2 * r - 0.8 * p - 1) ** 2),
        (IPOMD(tau=0.25), lambda m, r, p, a: (m - r - 2) ** 2),
        (DPO(beta=0.7), lambda m, r, p, a: -math.log(sigmoid(0.7 * (m - p)))),
        (SLiC(beta=0.7), lambda m, r, p, a: max(0.0, 1 - 0.7 * (m - p))),
    ],
    ids=lambda value: value.name if isinstance(value, Algorithm) else "",
)
def test_a_loss_is_its_formula(algorithm: Algorithm, formula: object) -> None:
    assert algorithm.loss(BATCH).tolist() == pytest.approx(by_hand(formula))


def test_dpo_starts_at_log_two_and_a_hinge_at_one() -> None:
    assert DPO().loss(SAME).tolist() == pytest.approx([math.log(2)] * 2)
    assert SLiC().loss(SAME).tolist() == [1.0, 1.0]


def test_the_margin_of_ipo_is_zero_where_the_policy_equals_the_reference() -> None:
    assert SAME.log_ratio("reference").tolist() == [0.0, 0.0]
    assert IPOMD(tau=0.5).loss(SAME).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("algorithm", [ONPO(eta=3.0), OMD(), INPO(), IPOMD(), SLiC(beta=0.5)])
def test_a_loss_is_least_at_the_target(algorithm: Algorithm) -> None:
    target = algorithm.target_nats()
    assert target is not None
    zero = values([0.0, 0.0], [0.0, 0.0])
    pair = PairBatch(values([target, target], [0.0, 0.0]), dict.fromkeys(BATCH.frozen, zero))
    assert algorithm.loss(pair).tolist() == pytest.approx([0.0, 0.0])


def test_the_target_of_dpo_is_unbounded() -> None:
    assert DPO().target_nats() is None


def test_a_soft_label_weighs_both_orders() -> None:
    algorithm, preference = IPOMD(tau=0.25), torch.tensor([0.9, 0.3], dtype=torch.float64)
    expected = by_hand(lambda m, r, p, a: (m - r - 2) ** 2), by_hand(lambda m, r, p, a: (m - r + 2) ** 2)
    soft = [w * won + (1 - w) * lost for w, won, lost in zip([0.9, 0.3], *expected, strict=True)]
    assert labelled_loss(algorithm, BATCH, preference).tolist() == pytest.approx(soft)
    hard = labelled_loss(algorithm, BATCH, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert hard.tolist() == pytest.approx([expected[0][0], expected[1][1]])


def test_swapping_twice_changes_nothing() -> None:
    again = BATCH.swapped().swapped()
    assert again.margin.tolist() == BATCH.margin.tolist()
    assert again.lengths == BATCH.lengths
    assert BATCH.swapped().margin.tolist() == [-1.5, 5.0]


def test_means_divide_each_response_by_its_own_length() -> None:
    mean = BATCH.per_token()
    assert mean.margin.tolist() == pytest.approx([-1.0 + 0.9, -1.0 + 1.0])
    assert mean.frozen["reference"].chosen.tolist() == pytest.approx([-3.5 / 3, -6 / 7])
    one_action = replace(BATCH, lengths=None)
    assert one_action.per_token() is one_action


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ONPO(eta=0), "onpo: eta is 0; it must be greater than 0"),
        (lambda: ONPO(eta=float("nan")), "onpo: eta is nan; it must be a number"),
        (lambda: ONPO(eta="big"), "onpo: eta is 'big'; it must be a number"),
        (lambda: ONPO(eta=True), "onpo: eta is True; it must be a number"),
        (lambda: INPO(eta=1.0, tau=-0.1), "inpo: tau is -0.1; it must be at least 0"),
        (lambda: IPOMD(tau=-1), "ipo-md: tau is -1; it must be greater than 0"),
        (lambda: IPOMD(mixture=1.5), "ipo-md: mixture is 1.5; it must be at most 1"),
        (lambda: DPO(beta=0), "dpo: beta is 0; it must be greater than 0"),
        (lambda: SLiC(beta=-2), "slic: beta is -2; it must be greater than 0"),
        (lambda: OMD(eta=None), "omd: eta is None; it must be a number"),
        (lambda: ONPO(eta=lambda t: -1.0).at(3), "onpo: eta is -1.0; it must be greater than 0"),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused_by_name(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        make()


def test_hyperparameters_may_be_functions_of_the_iteration() -> None:
    timed = INPO(eta=lambda t: 2.0 * t, tau=0.5)
    assert timed.at(3).target_nats() == INPO(eta=6.0).target_nats()
    assert ONPO(eta=2.0).at(7) == ONPO(eta=2.0)
