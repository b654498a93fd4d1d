"""Each loss against its formula, worked out by hand on two pairs, and what algorithms refuse."""

import math
from dataclasses import replace

import pytest
import torch

from trainers import (
    DPO,
    EGPO,
    INPO,
    IPO,
    IPOMD,
    OMD,
    OMWU,
    ONPO,
    RL,
    SFT,
    SPPO,
    Algorithm,
    NashMD,
    SelfPlay,
    SimPO,
    SLiC,
    SLiCHF,
)
from trainers.algorithm import PairBatch, PairValues, Player, Schedule, labelled_loss

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
    rewards={
        "policy": values([0.8, 0.3], [0.4, 0.5]),
        "previous": values([0.7, 0.2], [0.1, 0.6]),
        "earlier": values([0.6, 0.6], [0.3, 0.9]),
        "mixture": values([0.9, 0.1], [0.2, 0.4]),
        "reference": values([1.5, -0.5], [-2.0, 0.25]),
    },
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
        (DPO(beta=0.7, regime="online"), lambda m, r, p, a: -math.log(sigmoid(0.7 * (m - r)))),
        (SLiC(beta=0.7), lambda m, r, p, a: max(0.0, 1 - 0.7 * (m - p))),
        (SLiC(beta=0.7, regime="offline"), lambda m, r, p, a: max(0.0, 1 - 0.7 * (m - r))),
        (IPO(tau=0.25), lambda m, r, p, a: (m - r - 2) ** 2),
        (IPO(tau=0.25, regime="iterative"), lambda m, r, p, a: (m - p - 2) ** 2),
        (SimPO(beta=2.0, gamma=0.5, log_prob="sum"), lambda m, r, p, a: -math.log(sigmoid(2 * m - 0.5))),
        (SFT(), lambda m, r, p, a: 0.0),
    ],
    ids=lambda value: value.name if isinstance(value, Algorithm) else "",
)
def test_a_loss_is_its_formula(algorithm: Algorithm, formula: object) -> None:
    assert algorithm.loss(BATCH).tolist() == pytest.approx(by_hand(formula))


def two(first: float, second: float) -> object:
    """Both pairs' values, as approximately equal."""
    return pytest.approx([first, second])


def test_the_loss_of_sppo_fits_each_response_to_its_own_win_rate() -> None:
    expected = [(-1.0 - 3 * 0.2) ** 2 + (0.5 + 3 * 0.4) ** 2, (0.5 + 3 * 0.3) ** 2 + (-1.0 - 3 * 0.1) ** 2]
    assert SPPO(eta=3.0).loss(BATCH).tolist() == two(*expected)


def test_the_loss_of_egpo_and_omwu_fits_differences_of_win_rates() -> None:
    for opponent, gains in (("policy", (0.4, -0.2)), ("previous", (0.6, -0.4))):
        phase = replace(BATCH, rewards={opponent: BATCH.rewards[opponent]})
        expected = [(1.0 - gains[0] / 0.5) ** 2, (-1.5 - gains[1] / 0.5) ** 2]
        assert EGPO(tau=0.5, log_prob="sum").loss(phase).tolist() == two(*expected)
        means = replace(phase, lengths=PairValues(torch.tensor([2.0, 2.0]), torch.tensor([2.0, 2.0])))
        halved = [(0.5 - gains[0] / 0.5) ** 2, (-0.75 - gains[1] / 0.5) ** 2]
        assert EGPO(tau=0.5).loss(means).tolist() == two(*halved)  # the official code's convention
    optimistic = [(-1.5 - 2 * (2 * 0.6 - 0.3)) ** 2, (1.5 - 2 * (2 * -0.4 + 0.3)) ** 2]
    assert OMWU(eta=2.0).loss(BATCH).tolist() == two(*optimistic)


@pytest.mark.parametrize(
    ("algorithm", "baseline", "opponent"),
    [(SelfPlay(tau=0.2), 0.5, "policy"), (NashMD(tau=0.2), 0.5, "mixture"), (RL(tau=0.2), 0.0, "reference")],
)
def test_a_policy_gradient_weighs_each_response_by_reward_less_its_log_ratio(
    algorithm: Algorithm, baseline: float, opponent: str
) -> None:
    policy = replace(BATCH.policy, chosen=BATCH.policy.chosen.clone().requires_grad_())
    loss = algorithm.loss(replace(BATCH, policy=policy))
    (slope,) = torch.autograd.grad(loss.sum(), policy.chosen)
    ratios, rewards = (0.5, -1.0), BATCH.rewards[opponent].chosen.tolist()
    expected = [-(reward - baseline - 0.2 * ratio) / 2 for reward, ratio in zip(rewards, ratios, strict=True)]
    assert slope.tolist() == two(*expected)


def test_slic_hf_adds_the_likelihood_of_the_references_own_responses() -> None:
    expected = [max(0.0, 2 - 1.5) - 0.5 * (-3.75), max(0.0, 2 + 5.0) - 0.5 * (-4.5)]
    assert SLiCHF(delta=2.0, sft_weight=0.5).loss(BATCH).tolist() == two(*expected)


def test_simpo_and_mean_ipo_divide_by_length() -> None:
    mean = (-1.0 + 0.9, -1.0 + 1.0)
    expected = [-math.log(sigmoid(2 * m - 0.5)) for m in mean]
    assert SimPO(beta=2.0, gamma=0.5).loss(BATCH).tolist() == two(*expected)
    reference = (-3.5 / 3 + 4.0 / 5, -6.0 / 7 + 2.5 / 2)
    ipo = [(m - r - 2) ** 2 for m, r in zip(mean, reference, strict=True)]
    assert IPO(tau=0.25, log_prob="mean").loss(BATCH).tolist() == two(*ipo)


@pytest.mark.parametrize("algorithm", [SPPO(eta=2.0), EGPO(), OMWU(), SelfPlay(), NashMD(), RL(), SFT()])
def test_a_loss_that_asks_for_no_label_does_not_depend_on_it(algorithm: Algorithm) -> None:
    assert algorithm.pairing.label == "none"
    names = algorithm.phases[0].opponents if algorithm.phases else ()
    batch = replace(BATCH, rewards={name: BATCH.rewards[name] for name in names})
    assert algorithm.loss(batch).tolist() == pytest.approx(algorithm.loss(batch.swapped()).tolist())


@pytest.mark.parametrize("make", [DPO, IPO, SLiC, SimPO])
def test_a_regime_says_who_plays_when_and_against_what(make: type[DPO]) -> None:
    offline, iterative, online = (make(regime=word) for word in ("offline", "iterative", "online"))
    assert (offline.schedule, offline.player) == (Schedule.REFIT, Player.REFERENCE)
    assert (iterative.schedule, iterative.player) == (Schedule.REFIT, Player.POLICY)
    assert (online.schedule, online.player) == (Schedule.STREAM, Player.POLICY)
    assert online.pairing.label == "soft"
    if make is not SimPO:
        assert [a.phases[0].frozen for a in (offline, iterative, online)] == [
            ("reference",),
            ("previous",),
            ("reference",),
        ]


def test_the_reward_of_rl_is_the_log_odds_and_under_bradley_terry_the_score_difference() -> None:
    scores = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    wins = torch.sigmoid(scores[:, None] - scores[None, :])
    torch.testing.assert_close(RL().reward(wins), scores[:, None] - scores[None, :])
    cut = RL(reward_limit=1.0).reward(torch.tensor([0.0, 0.5, 1.0]))
    assert cut.tolist() == [-1.0, 0.0, 1.0]


def test_dpo_starts_at_log_two_and_a_hinge_at_one() -> None:
    assert DPO().loss(SAME).tolist() == pytest.approx([math.log(2)] * 2)
    assert SLiC().loss(SAME).tolist() == [1.0, 1.0]


def test_the_margin_of_ipo_is_zero_where_the_policy_equals_the_reference() -> None:
    assert SAME.log_ratio("reference").tolist() == [0.0, 0.0]
    assert IPOMD(tau=0.5).loss(SAME).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("algorithm", [ONPO(eta=3.0), OMD(), INPO(), IPOMD(), IPO(tau=0.3), SLiC(beta=0.5)])
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
    with pytest.raises(ValueError, match=r"need PairBatch\.lengths"):
        replace(BATCH, lengths=None).per_token()


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
        (
            lambda: DPO(regime="on-line"),
            "dpo: regime is 'on-line'; it must be one of iterative, offline, on-policy, online",
        ),
        (lambda: IPO(log_prob="average"), "ipo: log_prob is 'average'; it must be one of sum, mean"),
        (lambda: ONPO(start="reference"), "onpo: start is 'reference'; it must be one of auxiliary, policy"),
        (lambda: SLiCHF(sft_weight=-1), "slic-hf: sft_weight is -1; it must be at least 0"),
        (lambda: SimPO(gamma=-0.1), "simpo: gamma is -0.1; it must be at least 0"),
        (lambda: SPPO(eta=0), "sppo: eta is 0; it must be greater than 0"),
        (lambda: EGPO(temperature=0), "egpo: temperature is 0; it must be greater than 0"),
        (lambda: NashMD(mixture=-0.5), "nash-md: mixture is -0.5; it must be at least 0"),
        (lambda: RL(reward_limit=0), "rl: reward_limit is 0; it must be greater than 0"),
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
