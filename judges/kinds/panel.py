"""A panel of simulated annotators: preferences that are exactly computable and need not be transitive."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from judges.judge import Judge, Prompt, Question, last_turn
from judges.reading import clipped, parse_yaml, read_text, shortened
from judges.verdicts import Answer

Floats = NDArray[np.float64]
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
FUNCTION_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be but by do does for from had has have he her his how i if in is it its me my no not of "
        "on or our she so that the their them then there they this to up was we were what when where which who why "
        "will with you your"
    )
)


@dataclass(frozen=True)
class Text:
    """A text and its words, lower-cased."""

    text: str
    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Text:
        """A text with its words in lower case."""
        return cls(text, tuple(WORD.findall(text.lower())))


Measure = Callable[[Text, Text], float]
"""A feature's raw value from (the prompt's last user's turn, the response)."""


@dataclass(frozen=True)
class Feature:
    """A measure of a response, followed by a monotone transform where one is asked for; its kind is its key."""

    kind: str
    measure: Measure
    transform: Callable[[Floats], Floats]


@dataclass(frozen=True)
class Panel:
    """Annotators as linear utilities over features of text.

    Attributes:
        features: by name, in the file's order.
        annotators: their names.
        weights: float64 [annotators], positive, summing to 1.
        utility: float64 [annotators, features], coefficients.
        scale: how sharply an annotator distinguishes utilities, in nats per unit of utility.
    """

    features: Mapping[str, Feature]
    annotators: tuple[str, ...]
    weights: Floats
    utility: Floats
    scale: float


@dataclass(eq=False)
class PanelJudge(Judge):
    """The exact preference of the panel in a YAML file.

    P(a beats b | prompt) = sum_k weight_k sigmoid(scale (u_k(a) - u_k(b))): the expected share of weighted votes when
    annotator k prefers a where u_k(a) - u_k(b) exceeds logistic noise. It is exact, the same in both orders, and its
    majority (P > 1/2) may be cyclic.

    The file has the keys `features`, `annotators` ({name, weight, utility: {feature: coefficient}}; weights sum to 1)
    and `scale`. A feature is one of `lexicon: [words]` (share of the response's words), `pattern: REGEX` (matches per
    word), `length: true` (words), `unique_words: true` (distinct share of the words), `distinct_2: true` (distinct
    share of the word pairs), `overlap: prompt` (share of the prompt's content words that the response has), `facts:
    {subject: [words]}` (of the response's distinct words that are listed for any subject, the share listed for a
    subject the prompt names), each 0 for a response without words; followed where wanted by `quantiles: [...]` (rank
    among these reference quantiles, linear between them, in 0..1; equal quantiles share their mean rank) or `clip:
    [low, high]`. The prompt of a conversation is its last user's turn.

    Args:
        panel: path of the YAML file.

    Raises:
        ValueError: the file is missing or a value in it is wrong; the message names the place.
    """

    panel: str | Path
    paths: ClassVar[tuple[str, ...]] = ("panel",)

    def __post_init__(self) -> None:
        self._panel = read_panel(Path(self.panel))
        self._values: dict[tuple[str, str], tuple[float, ...]] = {}

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of `features`."""
        return tuple(self._panel.features)

    @property
    def annotators(self) -> tuple[str, ...]:
        """Names of the columns of `utilities`."""
        return self._panel.annotators

    def features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Floats:
        """The panel's features of each response, transformed: float64 [n, features]; a text is measured once."""
        keys = [(last_turn(prompt), response) for prompt, response in zip(prompts, responses, strict=True)]
        for key in {key: None for key in keys if key not in self._values}:
            prompt, response = Text.of(key[0]), Text.of(key[1])
            self._values[key] = tuple(feature.measure(prompt, response) for feature in self._panel.features.values())
        raw = np.array([self._values[key] for key in keys], dtype=np.float64).reshape(
            len(keys), len(self._panel.features)
        )
        columns = [
            feature.transform(column) for feature, column in zip(self._panel.features.values(), raw.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    @property
    def style_names(self) -> tuple[str, ...]:
        """The features that are lexicons: the styles that `styles` distinguishes."""
        return tuple(name for name, feature in self._panel.features.items() if feature.kind == "lexicon")

    def styles(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[str]:
        """The style of each response: the lexicon feature that is largest and at least a half, or "other"."""
        columns = [self.feature_names.index(name) for name in self.style_names]
        values = self.features(prompts, responses)[:, columns]
        return [self.style_names[row.argmax()] if row.max(initial=0) >= 0.5 else "other" for row in values]

    def utilities(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Floats:
        """Each annotator's utility of each response: float64 [n, annotators]."""
        return self.features(prompts, responses) @ self._panel.utility.T

    @property
    def chunk_size(self) -> int:
        """Large, as answers are cheap to compute."""
        return 4096

    def answer(self, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Answer]:
        prompts = [question.prompt for question in questions]
        gain = self._gain(
            prompts, [question.first for question in questions], [question.second for question in questions]
        )
        preference = _sigmoid(gain) @ self._panel.weights
        advance(len(questions))
        return [Answer(float(value)) for value in preference.clip(0, 1)]

    def simulate_votes(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], *, votes: int, seed: int
    ) -> NDArray[np.bool_]:
        """Votes of annotators drawn by weight with logistic noise: bool [n, votes], True where `first` wins."""
        generator = np.random.default_rng(seed)
        gain = self._gain(prompts, first, second)
        voters = generator.choice(len(self.annotators), size=(len(gain), votes), p=self._panel.weights)
        return np.take_along_axis(gain, voters, axis=1) > generator.logistic(size=voters.shape)

    def _gain(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Floats:
        return self._panel.scale * (self.utilities(prompts, first) - self.utilities(prompts, second))


def read_panel(path: Path) -> Panel:
    """Read and check a panel file. Raises ValueError with the place in the file and what is wrong there."""
    if not os.path.isfile(path):
        raise ValueError(f"panel file not found: {clipped(str(path), 250)}")
    content = parse_yaml(read_text(path), str(path))
    reader = _Reader(path)
    reader.keys(content, "the file", required=("features", "annotators", "scale"))
    features = {
        reader.name(name, "features"): reader.feature(spec, f"features.{name}")
        for name, spec in reader.filled(content["features"], dict, "features").items()
    }
    annotators = [
        reader.annotator(annotator_spec, f"annotators[{k}]", features)
        for k, annotator_spec in enumerate(reader.filled(content["annotators"], list, "annotators"))
    ]
    weights = np.array([weight for _, weight, _ in annotators])
    if not np.isclose(weights.sum(), 1, atol=1e-9):
        raise reader.wrong("annotators", f"the weights sum to {weights.sum():.6g}, they must sum to 1")
    names = tuple(name for name, _, _ in annotators)
    if len(set(names)) < len(names):
        raise reader.wrong("annotators", f"two annotators have one name: {clipped(', '.join(names), 120)}")
    utility = np.array([[coefficients.get(name, 0.0) for name in features] for _, _, coefficients in annotators])
    return Panel(features, names, weights / weights.sum(), utility, reader.number(content["scale"], "scale", above=0))


@dataclass(frozen=True)
class _Reader:
    """Checks values of one panel file; every message starts with the file and the place in it."""

    path: Path

    def wrong(self, place: str, problem: str) -> ValueError:
        return ValueError(f"{self.path}: {clipped(place, 80)}: {problem}")

    def keys(self, value: Any, place: str, *, required: Collection[str] = (), optional: Collection[str] = ()) -> None:
        if not isinstance(value, dict):
            raise self.wrong(place, f"expected keys and values, got {shortened(value)}")
        for key in value:
            self.check_known(key, (*required, *optional), place, "key")
        for key in required:
            if key not in value:
                raise self.wrong(place, f"the key {key!r} is missing")

    def check_known(self, name: Any, names: Collection[str], place: str, what: str) -> None:
        if name not in names:
            nearest = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose among {clipped(', '.join(names), 120)}"
            raise self.wrong(place, f"unknown {what} {shortened(name)}; {hint}")

    def filled(self, value: Any, kind: type, place: str) -> Any:
        if not isinstance(value, kind) or not value:
            raise self.wrong(
                place, f"expected a {'list' if kind is list else 'mapping'} that is not empty, got {shortened(value)}"
            )
        return value

    def number(self, value: Any, place: str, *, above: float = -np.inf) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < np.inf:
            raise self.wrong(
                place,
                f"expected a finite number{f' above {above:g}' if np.isfinite(above) else ''}, got {shortened(value)}",
            )
        return float(value)

    def name(self, value: Any, place: str) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.wrong(
                place, f"{shortened(value)} is no name; YAML reads yes, no, on, off and null so: put it in quotes"
            )
        return str(value)

    def words(self, value: Any, place: str) -> frozenset[str]:
        for word in self.filled(value, list, place):
            if not isinstance(word, str) or not WORD.fullmatch(word):
                raise self.wrong(
                    place, f"{shortened(word)} is not a single word (quote it in YAML, or use `pattern` for phrases)"
                )
        return frozenset(word.lower() for word in value)

    def feature(self, spec: Any, place: str) -> Feature:
        self.keys(spec, place, optional=(*KINDS, *TRANSFORMS))
        kinds, transforms = [key for key in spec if key in KINDS], [key for key in spec if key in TRANSFORMS]
        if len(kinds) != 1 or len(transforms) > 1:
            choice = f"one of {', '.join(KINDS)}, and at most one of {', '.join(TRANSFORMS)}"
            raise self.wrong(place, f"expected {choice}; got {clipped(', '.join(map(str, spec)), 60) or 'nothing'}")
        measure = KINDS[kinds[0]](self, spec[kinds[0]], f"{place}.{kinds[0]}")
        transform = (
            TRANSFORMS[transforms[0]](self, spec[transforms[0]], f"{place}.{transforms[0]}")
            if transforms
            else np.asarray
        )
        return Feature(kinds[0], measure, transform)

    def annotator(self, spec: Any, place: str, features: Collection[str]) -> tuple[str, float, dict[str, float]]:
        self.keys(spec, place, required=("name", "weight", "utility"))
        for name in self.filled(spec["utility"], dict, f"{place}.utility"):
            self.check_known(self.name(name, f"{place}.utility"), features, f"{place}.utility", "feature")
        coefficients = {
            str(name): self.number(value, f"{place}.utility.{name}") for name, value in spec["utility"].items()
        }
        return (
            self.name(spec["name"], f"{place}.name"),
            self.number(spec["weight"], f"{place}.weight", above=0),
            coefficients,
        )

    def switch(self, value: Any, place: str, expected: object) -> None:
        if value is not expected and value != expected:
            raise self.wrong(place, f"the only value is {str(expected).lower()}, got {shortened(value)}")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _lexicon(reader: _Reader, value: Any, place: str) -> Measure:
    lexicon = reader.words(value, place)
    return lambda prompt, response: _share(sum(word in lexicon for word in response.words), len(response.words))


def _pattern(reader: _Reader, value: Any, place: str) -> Measure:
    try:
        pattern = re.compile(value)
    except (re.error, TypeError) as error:
        raise reader.wrong(place, f"{shortened(value)} is not a regular expression: {clipped(str(error))}") from error
    return lambda prompt, response: _share(sum(1 for _ in pattern.finditer(response.text)), len(response.words))


def _length(reader: _Reader, value: Any, place: str) -> Measure:
    reader.switch(value, place, True)
    return lambda prompt, response: float(len(response.words))


def _unique_words(reader: _Reader, value: Any, place: str) -> Measure:
    reader.switch(value, place, True)
    return lambda prompt, response: _share(len(set(response.words)), len(response.words))


def _distinct_2(reader: _Reader, value: Any, place: str) -> Measure:
    reader.switch(value, place, True)

    def measure(prompt: Text, response: Text) -> float:
        bigrams = list(zip(response.words, response.words[1:], strict=False))
        return _share(len(set(bigrams)), len(bigrams))

    return measure


def _overlap(reader: _Reader, value: Any, place: str) -> Measure:
    reader.switch(value, place, "prompt")

    def measure(prompt: Text, response: Text) -> float:
        content = set(prompt.words) - FUNCTION_WORDS
        return _share(len(content & set(response.words)), len(content))

    return measure


def _facts(reader: _Reader, value: Any, place: str) -> Measure:
    facts = {
        reader.name(subject, place).lower(): reader.words(words, f"{place}.{subject}")
        for subject, words in reader.filled(value, dict, place).items()
    }
    any_fact = frozenset[str]().union(*facts.values())

    def measure(prompt: Text, response: Text) -> float:
        true = frozenset[str]().union(*(facts[word] for word in prompt.words if word in facts))
        claims = any_fact & set(response.words)
        return _share(len(claims & true), len(claims))

    return measure


def _quantiles(reader: _Reader, value: Any, place: str) -> Callable[[Floats], Floats]:
    points = np.array([reader.number(point, place) for point in reader.filled(value, list, place)])
    if len(set(points)) < 2 or (np.diff(points) < 0).any():
        raise reader.wrong(place, f"expected numbers that do not fall, two of them different, got {shortened(value)}")
    distinct, where = np.unique(points, return_inverse=True)
    ranks = np.bincount(where, weights=np.linspace(0, 1, len(points))) / np.bincount(where)
    return lambda raw: np.interp(raw, distinct, ranks)


def _clip(reader: _Reader, value: Any, place: str) -> Callable[[Floats], Floats]:
    bounds = [reader.number(bound, place) for bound in reader.filled(value, list, place)]
    if len(bounds) != 2 or bounds[0] >= bounds[1]:
        raise reader.wrong(place, f"expected [low, high] with low < high, got {shortened(value)}")
    return lambda raw: raw.clip(bounds[0], bounds[1])


KINDS: dict[str, Callable[[_Reader, Any, str], Measure]] = {
    "lexicon": _lexicon,
    "pattern": _pattern,
    "length": _length,
    "unique_words": _unique_words,
    "distinct_2": _distinct_2,
    "overlap": _overlap,
    "facts": _facts,
}
TRANSFORMS: dict[str, Callable[[_Reader, Any, str], Callable[[Floats], Floats]]] = {
    "quantiles": _quantiles,
    "clip": _clip,
}


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(x / 2))
