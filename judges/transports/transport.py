"""What a transport is: how a language model is reached, with its own few options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from typing import Protocol as Interface

from judges.transports.messages import TEXT, ChatReply, ChatRequest

if TYPE_CHECKING:
    from judges.transports.cache import ReplyCache
    from judges.transports.limits import Limits

Advance = Callable[[int], None]


class Backend(Interface):
    """What answers requests to one model."""

    def clean(self, text: str) -> str:
        """A text of a question, made safe for a request."""

    def ask(self, requests: Sequence[ChatRequest], advance: Advance) -> list[ChatReply]:
        """A reply to each request, in order; a failed one has its kind as status."""


class Transport(ABC):
    """How a language model is reached: a frozen dataclass of its options, registered in `nashbench.transports`.

    Its code is in no key of a result: what a model replies does not depend on who carries it. Which transport it is,
    and its options, are.
    """

    gives: ClassVar[frozenset[str]] = frozenset({TEXT})
    """What it gives of a reply: `text`, the probabilities of `labels`, those of a scale's `levels`."""

    is_endpoint: ClassVar[bool] = False
    """Whether each question is a paid call: limits hold for it, and its replies are kept."""

    paths: ClassVar[tuple[str, ...]] = ()
    """Options that name a file; a config resolves these against its own folder, and a key has their content."""

    tuning: ClassVar[tuple[str, ...]] = ()
    """Options that change speed only: they are in no key of a result."""

    def check(self, model: str | Path) -> None:  # noqa: B027 (there may be nothing to check)
        """Raise ValueError for a model that cannot be reached so, as far as can be told at once and without weights."""

    def described(self) -> Any:
        """What decides the replies beside the options, as JSON."""
        return None

    def chunk_size(self, limits: Limits) -> int:
        """Questions to ask at once where answers are saved after each call."""
        return 64 * limits.concurrency

    @abstractmethod
    def connect(self, model: str | Path, limits: Limits, repeat: int, replies: ReplyCache | None) -> Backend:
        """What answers requests to this model.

        Args:
            repeat: which repetition of the same questions these are, for a cache of replies.
            replies: where an endpoint's replies are kept.
        """
