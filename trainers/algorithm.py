"""What an algorithm is: who plays, against which frozen policies, in which phases, and one pure loss.

Sampling, comparing, pairing and fitting are the same for every algorithm and live elsewhere (`trainers.fit`,
`trainers.stream`, `trainers.policies.tabular`). A subclass of `Algorithm` is a frozen dataclass of its own
hyperparameters plus `loss`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from torch import Tensor

if TYPE_CHECKING:
    # A loss only ever sees numbers: the loops ask for `algorithm.at(t)` first.
    Scalar = float
else:
    Scalar = float | Callable[[int], float]
    """A hyperparameter: a number, or a function of the iteration t = 1, 2, ... (functions are for `play`)."""


class Schedule(StrEnum):
    """How samples and gradient steps alternate."""

    REFIT = "refit"
    """One batch of pairs an iteration, fitted for some epochs."""
    STREAM = "stream"
    """Fresh samples for every gradient step."""


class Player(StrEnum):
    """Whose responses are compared."""

    POLICY = "policy"
    MIXTURE = "mixture"
    """The geometric mixture policy^(1-mixture) reference^mixture, token by token; needs a field `mixture`."""
    REFERENCE = "reference"


@dataclass(frozen=True)
class Phase:
    """One fit: it starts at one policy, is measured against frozen ones and writes the result.

    Names are slots: `policy` and `auxiliary` (both the start at first), `previous` (the policy when the iteration
    began) and `reference` (the untrained policy). A phase sees what earlier phases of its iteration wrote.
    """

    start: str
    frozen: tuple[str, ...]
    writes: str


@dataclass(frozen=True)
class Pairing:
    """How sampled responses become labelled pairs (the sweep's `pairs:` overrides it).

    protocol: `tournament` (2502.16852 via INPO's bracket) or `iid` (the theory's independent pairs).
    label: `argmax` (the preferred one is chosen), `sampled` (Bernoulli) or `soft` (the pair keeps its probability).
    orders: `one` order asked for each comparison, drawn at random, or `both`.
    """

    protocol: str = "tournament"
    label: str = "argmax"
    orders: str = "one"


@dataclass(frozen=True)
class PairLogProbs:
    """Summed log-probabilities (nats) of the two responses of each pair under one policy, both of shape [pairs]."""

    chosen: Tensor
    rejected: Tensor

    @property
    def margin(self) -> Tensor:
        """log pi(chosen) - log pi(rejected), nats, [pairs]."""
        return self.chosen - self.rejected

    def swapped(self) -> PairLogProbs:
        return PairLogProbs(self.rejected, self.chosen)


@dataclass(frozen=True)
class PairBatch:
    """What a loss may look at: each pair under the policy being trained (with gradients) and under the frozen ones."""

    policy: PairLogProbs
    frozen: Mapping[str, PairLogProbs]

    @property
    def margin(self) -> Tensor:
        """The trained policy's margin log pi(chosen) - log pi(rejected), nats, [pairs]."""
        return self.policy.margin

    def log_ratio(self, name: str) -> Tensor:
        """The margin less the frozen policy's: log pi/pi_name (chosen) - log pi/pi_name (rejected), nats, [pairs]."""
        return self.policy.margin - self.frozen[name].margin

    def swapped(self) -> PairBatch:
        """The same pairs with the roles of chosen and rejected exchanged."""
        return PairBatch(self.policy.swapped(), {name: pair.swapped() for name, pair in self.frozen.items()})


def number(
    default: Scalar | None, *, above: float | None = None, at_least: float | None = None, at_most: float | None = None
) -> Any:
    """A dataclass field for a hyperparameter that is checked against a range when the algorithm is made."""
    return dataclasses.field(default=default, metadata={"above": above, "at_least": at_least, "at_most": at_most})


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """A preference-optimisation algorithm: a few declarations and a pure loss.

    Raises ValueError when made with a hyperparameter out of its range.
    """

    name: ClassVar[str]
    schedule: ClassVar[Schedule]
    player: ClassVar[Player] = Player.POLICY
    phases: ClassVar[tuple[Phase, ...]]
    pairing: ClassVar[Pairing] = Pairing()
    unique_minimiser: ClassVar[bool] = True
    """False where a refit has no single exact solution (a hinge): games then play it as a stream."""
    equation: ClassVar[str]
    source: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_range(self, field)

    @abstractmethod
    def loss(self, pair: PairBatch) -> Tensor:
        """The loss of each pair, [pairs], for a hard label: `chosen` was preferred to `rejected`."""

    def target_nats(self) -> float | None:
        """The log-ratio (nats) at which the loss of one pair is least; None where it is unbounded."""
        return None

    def at(self, iteration: int) -> Self:
        """This algorithm at iteration t = 1, 2, ...: hyperparameters that are functions of t are evaluated."""
        timed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if callable(getattr(self, f.name))}
        return dataclasses.replace(self, **{name: value(iteration) for name, value in timed.items()}) if timed else self


def labelled_loss(algorithm: Algorithm, pair: PairBatch, preference: Tensor) -> Tensor:
    """The loss of each pair under a label that may be soft: p loss(chosen, rejected) + (1 - p) loss(rejected, chosen).

    Args:
        preference: P(chosen beats rejected), [pairs]; 1 for a hard label.
    """
    return preference * algorithm.loss(pair) + (1 - preference) * algorithm.loss(pair.swapped())


def _check_range(algorithm: Algorithm, field: dataclasses.Field[Any]) -> None:
    value, limits = getattr(algorithm, field.name), field.metadata
    if callable(value) or "above" not in limits or (value is None and field.default is None):
        return
    fact = f"{algorithm.name}: {field.name} is {value!r}"
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{fact}; it must be a number")
    if limits["above"] is not None and not value > limits["above"]:
        raise ValueError(f"{fact}; it must be greater than {limits['above']}")
    if limits["at_least"] is not None and not value >= limits["at_least"]:
        raise ValueError(f"{fact}; it must be at least {limits['at_least']}")
    if limits["at_most"] is not None and not value <= limits["at_most"]:
        raise ValueError(f"{fact}; it must be at most {limits['at_most']}")
