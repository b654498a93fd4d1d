"""The algorithms page: its example runs, and its table has every algorithm."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainers
from trainers.algorithm import Algorithm

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ALGORITHMS = [
    kind for name in trainers.__all__ if name != "Algorithm" and issubclass(kind := getattr(trainers, name), Algorithm)
]


def test_the_example_runs_and_fits_in_twenty_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert len([line for line in CODE[0].splitlines() if line.strip()]) <= 20
    names: dict[str, Any] = {"__name__": "example"}
    exec(CODE[0] + CODE[1], names)
    gaps = [float(word) for word in capsys.readouterr().out.split()]
    assert len(gaps) == 2
    assert all(0 <= gap < 1 for gap in gaps)
    assert names["run"].policies.shape == (201, 3)


def test_the_examples_loss_is_the_step_it_says() -> None:
    """While the policy is the reference nothing fades: the first step is mirror descent's."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(CODE[0] + CODE[1], names)
    first = names["play"](trainers.OMD(eta=0.5), names["load_game"]("cyc3"), 1).policies[1]
    np.testing.assert_allclose(names["run"].policies[1], first, atol=1e-12)


def test_every_algorithm_has_its_row() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(kind.name for kind in ALGORITHMS)


@pytest.mark.parametrize("kind", ALGORITHMS, ids=lambda kind: kind.name)
def test_every_algorithm_fits_on_its_page_and_says_where_it_is_from(kind: type[Algorithm]) -> None:
    lines = Path(inspect.getfile(kind)).read_text(encoding="utf-8").count("\n")
    assert lines <= (60 if kind.name in ("dpo", "ipo", "slic", "slic-hf", "simpo") else 120)
    algorithm = kind()
    assert algorithm.equation
    assert algorithm.source
    assert kind.__doc__
    target = algorithm.target_nats()
    assert target is None or target > 0
