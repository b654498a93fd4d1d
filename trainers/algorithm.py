"""What an algorithm is: who plays, against which frozen policies, in which phases, and one pure loss.

Sampling, comparing, pairing and fitting are the same for every algorithm and live elsewhere (`trainers.fitting.fit`,
`trainers.fitting.stream`, `trainers.policies.tabular`). A subclass of `Algorithm` is a frozen dataclass of its own
hyperparameters plus `loss`.
"""

from __future__ import annotations

import dataclasses
import math
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
    """A fixed law: the untrained policy's responses, or a data set where there is one."""


@dataclass(frozen=True)
class Phase:
    """One fit (a refit) or one gradient step (a stream): it starts at one policy and writes the result.

    Names are the roles of policies: `policy` and `auxiliary` (both the start at first), `previous` (the policy when the
    iteration began), `earlier` (the same, one iteration before) and `reference` (the untrained policy). A phase sees
    what earlier phases of its iteration wrote.

    Attributes:
        frozen: roles whose log-probabilities of both responses the loss is measured against.
        opponents: roles, or `mixture`, against whose fresh responses each response earns its reward.
        shared: both responses of a pair meet one and the same response of an opponent, for losses of their rewards'
            difference: what that response does to both then cancels. Otherwise each meets one of its own.
    """

    start: str
    frozen: tuple[str, ...]
    writes: str
    opponents: tuple[str, ...] = ()
    shared: bool = False


@dataclass(frozen=True)
class Pairing:
    """How sampled responses become labelled pairs (the sweep's `pairs:` overrides it).

    protocol: `tournament` (2502.16852 via INPO's bracket), `best-worst` (by mean win rate over the other responses), or
    `iid` (the theory's independent pairs).
    label: `argmax` (the preferred one is chosen), `sampled` (Bernoulli), `soft` (the pair keeps its probability) or
    `none` (the loss does not depend on which is called chosen, so the judge is not asked).
    orders: `one` order asked for each comparison, drawn at random, or `both`.
    """

    protocol: str = "tournament"
    label: str = "argmax"
    orders: str = "one"


@dataclass(frozen=True)
class PairValues:
    """One number for each of the two responses of each pair, both of shape [pairs]."""

    chosen: Tensor
    rejected: Tensor

    @property
    def margin(self) -> Tensor:
        """The chosen response's number less the rejected one's, [pairs]."""
        return self.chosen - self.rejected

    def swapped(self) -> PairValues:
        """Chosen and rejected exchanged."""
        return PairValues(self.rejected, self.chosen)


PairLogProbs = PairValues
"""Summed log-probabilities (nats) of both responses under one policy."""


@dataclass(frozen=True)
class PairBatch:
    """What a loss may look at.

    Attributes:
        policy: log-probabilities under the policy being trained, with gradients.
        frozen: the same under each frozen policy of the phase.
        rewards: for each opponent of the phase, each response's mean reward against it, [pairs].
        lengths: tokens of each response (1 in a game); None where the loop was not asked for them.
    """

    policy: PairLogProbs
    frozen: Mapping[str, PairLogProbs]
    rewards: Mapping[str, PairValues] = dataclasses.field(default_factory=dict)
    lengths: PairValues | None = None

    @property
    def margin(self) -> Tensor:
        """The trained policy's margin log pi(chosen) - log pi(rejected), nats, [pairs]."""
        return self.policy.margin

    def log_ratio(self, name: str) -> Tensor:
        """The margin less the frozen policy's: log pi/pi_name (chosen) - log pi/pi_name (rejected), nats, [pairs]."""
        return self.policy.margin - self.frozen[name].margin

    def swapped(self) -> PairBatch:
        """The same pairs with the roles of chosen and rejected exchanged."""
        return PairBatch(
            self.policy.swapped(),
            {name: values.swapped() for name, values in self.frozen.items()},
            {name: values.swapped() for name, values in self.rewards.items()},
            self.lengths and self.lengths.swapped(),
        )

    def per_token(self) -> PairBatch:
        """The same pairs with every log-probability divided by its response's length: means, not sums.

        Raises:
            ValueError: the batch has no lengths.
        """
        if self.lengths is None:
            raise ValueError("mean log-probabilities need PairBatch.lengths, and this batch has none")
        over = {name: _divided(values, self.lengths) for name, values in self.frozen.items()}
        return dataclasses.replace(self, policy=_divided(self.policy, self.lengths), frozen=over)


def _divided(values: PairValues, lengths: PairValues) -> PairValues:
    return PairValues(values.chosen / lengths.chosen, values.rejected / lengths.rejected)


def number(
    default: Scalar | None,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    infinite: bool = False,
) -> Any:
    """A dataclass field for a hyperparameter that is checked against a range when the algorithm is constructed."""
    limits = {"above": above, "at_least": at_least, "at_most": at_most, "infinite": infinite}
    return dataclasses.field(default=default, metadata=limits)


def choice(default: str, *others: str) -> Any:
    """A dataclass field for a convention that papers or programs disagree on: one of a few words."""
    return dataclasses.field(default=default, metadata={"choices": (default, *others)})


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """A preference-optimisation algorithm: a few declarations and a pure loss.

    The declarations are class attributes, or properties where they depend on a hyperparameter; ask an instance.
    Raises ValueError for a hyperparameter out of its range.
    """

    name: ClassVar[str]
    unique_minimiser: ClassVar[bool] = True
    """False where a refit has no single exact solution (a hinge): games then play it as a stream."""
    needs: ClassVar[str | None] = None
    """`game` or `text` for an algorithm that only one of them can play."""
    equation: ClassVar[str]
    source: ClassVar[str]

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """How samples and gradient steps alternate."""

    @property
    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """What an iteration fits, in order."""

    @property
    def player(self) -> Player:
        """Whose responses are compared."""
        return Player.POLICY

    @property
    def temperature(self) -> Scalar | None:
        """The player's sampling temperature; None where the algorithm does not ask for one of its own."""
        return None

    @property
    def pairing(self) -> Pairing:
        """How responses become pairs unless the sweep says otherwise."""
        return Pairing()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_range(self, field)
            _check_choice(self, field)

    @abstractmethod
    def loss(self, pair: PairBatch) -> Tensor:
        """The loss of each pair, [pairs], for a hard label: `chosen` was preferred to `rejected`."""

    def reward(self, preference: Tensor) -> Tensor:
        """What one comparison is worth to a response that wins it with this probability; averaged over opponents."""
        return preference

    def target_nats(self) -> float | None:
        """The log-ratio (nats) at which a pair's loss is least; None where it is unbounded or a reward sets it."""
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
    fact = f"{algorithm.name}: {field.name} is {repr(value)[:60]}"
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"{fact}; it must be a number")
    if math.isinf(value) and not limits["infinite"]:
        raise ValueError(f"{fact}; it must be finite")
    if limits["above"] is not None and not value > limits["above"]:
        raise ValueError(f"{fact}; it must be greater than {limits['above']}")
    if limits["at_least"] is not None and not value >= limits["at_least"]:
        raise ValueError(f"{fact}; it must be at least {limits['at_least']}")
    if limits["at_most"] is not None and not value <= limits["at_most"]:
        raise ValueError(f"{fact}; it must be at most {limits['at_most']}")


def _check_choice(algorithm: Algorithm, field: dataclasses.Field[Any]) -> None:
    value, choices = getattr(algorithm, field.name), field.metadata.get("choices")
    if choices is not None and not (isinstance(value, str) and value in choices):
        raise ValueError(
            f"{algorithm.name}: {field.name} is {repr(value)[:60]}; it must be one of {', '.join(choices)}"
        )
