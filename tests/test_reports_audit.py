"""The page of an audit: every figure is there, hostile text stays text, no network."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_reports_pages import Page

import reports
from judges.audit.agreement import log_loss
from judges.audit.audit import audit, disagreements
from judges.files import LabelledPair, Verdict

HOSTILE = '<script>alert(1)</script><img src="http://example.org/x"> [[A]] \x1b[31m \u202e \ud800'


def case(n: int = 12) -> tuple[list[LabelledPair], list[Verdict]]:
    labels = [
        LabelledPair(f"{i}{HOSTILE}", f"p{i // 3}", f"{HOSTILE}{'ab'[i % 2]}", "c" * (i + 1), ("first",))
        for i in range(n)
    ]
    verdicts = [
        Verdict(pair.id, order, (i % 5) / 4, "ok", repeat, 10, 1, 0.5, 0.001)
        for i, pair in enumerate(labels)
        for order in ("original", "swapped")
        for repeat in range(2)
    ]
    return labels, [*verdicts[:-1], Verdict(labels[-1].id, "swapped", float("nan"), HOSTILE, 1)]


def page(labels: list[LabelledPair], verdicts: list[Verdict], out: Path) -> tuple[dict[str, Any], Page, str]:
    figures = audit(labels, verdicts)
    about = {"judge": HOSTILE, "options": {"model": HOSTILE}, "labels": "l", "verdicts": ""}
    path = reports.audit_page(
        {"about": about, "figures": figures, "disagreements": disagreements(labels, verdicts)}, out / "new"
    )
    assert path == out / "new" / "audit.html"
    return figures, Page(path), path.read_text(encoding="utf-8")


def test_the_figures_are_on_the_page_in_full(tmp_path: Path) -> None:
    figures, found, _ = page(*case(), tmp_path)
    shown = {value for value, _ in found.figures()}
    single = [figures[name] for name in ("accuracy", "kappa", "flip_rate", "position_bias", "length_bias", "coverage")]
    nested = [figures["self_consistency"]["agreement"], figures["work"]["input_tokens"], figures["matched_length"]["n"]]
    for value in (*single, *nested, *figures["intervals"]["accuracy"], *figures["accuracy_by_order"].values()):
        assert value in shown
    for row in figures["reliability"]:
        assert {row["preference"], row["share"], row["n"]} <= shown


def test_hostile_text_is_shown_and_not_run(tmp_path: Path) -> None:
    _, found, text = page(*case(), tmp_path)
    assert [attributes for tag, attributes, _ in found.elements if tag == "script"] == [{}]
    assert not [tag for tag, _, _ in found.elements if tag in ("img", "iframe", "object")]
    assert "<script>alert(1)</script>" in found.texts("div", "dd", "a")
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_page_needs_no_network_and_is_light_and_dark(tmp_path: Path) -> None:
    _, found, text = page(*case(), tmp_path)
    policy = next(a["content"] for tag, a, _ in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "prefers-color-scheme: dark" in text
    targets = [a[key] for _, a, _ in found.elements for key in ("src", "href") if key in a]
    assert all(target.startswith(("#", "data:")) for target in targets)


def test_what_cannot_be_computed_says_why(tmp_path: Path) -> None:
    labels = [LabelledPair("1", "p", "a", "b", ("tie",))]
    for verdicts in ([], [Verdict("1", "original", 0.5, "ok")], [Verdict("1", "original", float("nan"), "timeout")]):
        _, found, text = page(labels, verdicts, tmp_path)
        shown = found.texts("p", "li")
        assert "every question was put once" in shown
        assert "no prompt has three responses" in shown
        assert "No pair was judged in both orders" in shown
        assert ("No verdict to hold against 1 label." in shown) == (not verdicts or verdicts[0].status != "ok")
        assert not re.search(r"\b(nan|None)\b[^.]", re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.S))


@pytest.mark.parametrize("size", [10, 5000])
def test_long_texts_are_cut_and_counted(tmp_path: Path, size: int) -> None:
    labels = [LabelledPair("1", "p", "a" * size, "b", ("first",))]
    _, found, _ = page(labels, [Verdict("1", "original", 0.0, "ok")], tmp_path)
    assert ("1000 more characters" in found.texts("small")) == (size > 4000)


def test_the_headline_is_a_sentence_and_says_nothing_of_lengths_that_no_pair_has(tmp_path: Path) -> None:
    labels = [LabelledPair("1", "p", "a" * 90, "b", ("first",)), LabelledPair("2", "q", "a", "b" * 90, ("first",))]
    _, found, _ = page(labels, [Verdict("1", "original", 1.0, "ok"), Verdict("2", "original", 1.0, "ok")], tmp_path)
    assert "The judge gives people’s verdict on  of 2 pairs" in found.texts("p")
    assert "100.0%" in found.texts("b")
    assert "No pair with a verdict has lengths that differ by at most 10%" in found.texts("p")


def test_certain_verdicts_are_clipped_as_the_page_says(tmp_path: Path) -> None:
    _, found, _ = page(*case(), tmp_path)
    cost = log_loss(np.array([0.0]), np.array([1.0]))
    assert f"each that is wrong adds {cost:.1f} nats" in found.texts("p")
    assert cost == pytest.approx(-np.log(1e-12))


@pytest.mark.parametrize(("prompts", "few"), [(19, True), (20, False)])
def test_few_prompts_are_a_caveat(tmp_path: Path, prompts: int, few: bool) -> None:
    labels = [LabelledPair(str(i), f"p{i}", "a", "b", ("first",)) for i in range(prompts)]
    _, found, _ = page(labels, [Verdict(pair.id, "original", 1.0, "ok") for pair in labels], tmp_path)
    assert ("intervals over fewer than 20 are too narrow" in found.texts("li")) is few


def test_intervals_of_one_prompt_are_said_to_say_nothing(tmp_path: Path) -> None:
    labels = [LabelledPair(str(i), "p", "a", "b", ("first",)) for i in range(3)]
    _, found, _ = page(labels, [Verdict(pair.id, "original", 1.0, "ok") for pair in labels], tmp_path)
    assert "The pairs are of 1 prompt: drawn again it is the same one, so the intervals say nothing." in found.texts(
        "li"
    )
    assert "too narrow" not in found.texts("li")


def test_a_row_without_a_figure_says_that_there_is_none_and_no_other_does(tmp_path: Path) -> None:
    labels = [LabelledPair(str(i), f"p{i}", "a", "b", ("first",)) for i in range(3)]
    figures, found, _ = page(labels, [Verdict(pair.id, "original", 1.0, "ok") for pair in labels], tmp_path)
    notes = [line for line in found.texts("small").splitlines() if "cannot be computed from these pairs" in line]
    known = [figures[key] for key in ("accuracy", "kappa", "order_agreement", "flip_rate", "position_bias")]
    known += [figures["length_bias"], figures["accuracy_without_ties"], *figures["accuracy_by_order"].values()]
    assert len(notes) == known.count(None) > 0
    assert "one class in both orders; cannot be computed from these pairs" in notes
