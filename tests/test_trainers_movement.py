"""How far a fit or a stream moved, against policies whose log-probabilities are written down."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from trainers import DPO, IPO, IPOMD, OMD, SPPO, SLiC
from trainers.fitting.movement import MOST_PAIRS, Watch, movement
from trainers.fitting.pairs import Pairs
from trainers.fitting.stream import stream
from trainers.options import Sampling, Training
from trainers.policies.softmax_table import SoftmaxTable


def pairs_of(preference: list[float], **rewards: Any) -> Pairs:
    n = len(preference)
    named = {name: np.array(values) for name, values in rewards.items()}
    return Pairs([[]] * n, [[0]] * n, [[1]] * n, np.array(preference), named)


def test_the_movement_is_the_root_mean_square_log_ratio_of_all_responses() -> None:
    ratios = np.array([[0.3, -0.1], [0.0, 0.4]])
    found = movement(ratios, pairs_of([1.0, 1.0]), DPO())
    assert found == {"movement": pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 4))}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_slope_is_the_share_of_the_way_to_the_labels_targets(share: float) -> None:
    preference = [1.0, 0.9, 0.2, 0.5]
    way = share * OMD(eta=6.0).target_nats() * (2 * np.array(preference) - 1)
    ratios = np.stack([way / 3, way / 3 - way], axis=1)
    found = movement(ratios, pairs_of(preference), OMD(eta=6.0))
    assert found["target_slope"] == pytest.approx(share)


def test_labels_that_ask_for_nothing_have_no_slope() -> None:
    assert "target_slope" not in movement(np.ones((2, 2)), pairs_of([0.5, 0.5]), SLiC())


def test_rewards_stand_in_for_labels() -> None:
    """SPPO's exact step moves each response by eta (reward - 1/2)."""
    rewards = np.array([[0.8, 0.3], [0.6, 0.5]])
    found = movement(20.0 * (rewards - 0.5), pairs_of([1.0, 1.0], previous=rewards), SPPO(eta=20.0))
    assert found["target_slope"] == pytest.approx(1)


def test_a_target_in_nats_a_token_is_held_against_means() -> None:
    pairs = Pairs([[]] * 2, [[0, 0], [0]], [[1, 1, 1, 1], [1, 1]], np.ones(2))
    means = np.array([[0.3, -0.2], [0.4, -0.1]])
    ratios = means * np.array([[2, 4], [1, 2]])
    assert movement(ratios, pairs, IPO(tau=1.0, log_prob="mean"))["target_slope"] == pytest.approx(1)


def test_a_watch_is_of_the_first_pairs_and_of_where_it_began() -> None:
    policy = SoftmaxTable(torch.tensor([0.2, 0.8]).log())
    watch = Watch.at(policy, pairs_of([1.0] * (MOST_PAIRS + 7)), 64)
    assert len(watch.pairs) == MOST_PAIRS
    assert watch.figures(policy, DPO()) == {"movement": 0}
    moved = SoftmaxTable(torch.tensor([0.4, 0.6]).log())
    expected = math.sqrt((math.log(2) ** 2 + math.log(0.75) ** 2) / 2)
    assert watch.figures(moved, DPO())["movement"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("lr", [0.0001, 0.05])
def test_a_stream_reports_how_far_it_moved_on_what_it_drew_first(lr: float) -> None:
    start, policy = SoftmaxTable(torch.zeros(3)), SoftmaxTable(torch.zeros(3))
    first: list[np.ndarray] = []

    def compare(rows: Any, one: Any, other: Any) -> np.ndarray:
        first.append(np.array([[int(a), int(b)] for a, b in zip(one, other, strict=True)]))
        return np.array([0.5 + (int(b) - int(a)) / 8 for a, b in zip(one, other, strict=True)])

    result = stream(
        policy,
        {"reference": start},
        [[]] * 16,
        compare,
        IPOMD(mixture=0.0),
        Training(lr=lr, schedule="constant", warmup=0.0, batch_size=16, precision="fp32"),
        Sampling(k=2),
        label="soft",
        steps=5,
        total_steps=5,
        seed=0,
    )
    ratios = policy.logits.detach().log_softmax(-1).numpy() + math.log(3)
    assert result.movement["movement"] == pytest.approx(np.sqrt(np.mean(ratios[first[0]] ** 2)), rel=1e-3)
    assert (result.movement["movement"] < 0.01) == (lr < 0.001)
    assert result.movement["target_slope"] > 0
