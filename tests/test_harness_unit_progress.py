"""The time left, the lines and the failures a person sees, without a worker; and the order of stages."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
from fake_stages import fake
from rich.console import Console

import harness.run.progress as progress_module
from harness.run.progress import ProgressListener
from harness.stage import Stage, in_order


class Watched:
    """A listener with a clock of its own, and the text it printed."""

    def __init__(self, stages: Sequence[Stage], *, terminal: bool = False, checks: Sequence[str] = ()) -> None:
        self.now, self.text = 0.0, io.StringIO()
        console = Console(file=self.text, force_terminal=terminal, width=200, color_system=None)
        self.listener = ProgressListener(stages, console, checks)

    def work(self, stage: Stage, seconds: float) -> str:
        """Compute a stage in so many seconds; the time said to be left afterwards."""
        self.listener.started(stage)
        self.now += seconds
        self.listener.finished(stage, computed=True)
        return self.left

    @property
    def left(self) -> str:
        return str(self.listener.bars.tasks[0].fields["left"])

    @property
    def lines(self) -> list[str]:
        return self.text.getvalue().splitlines()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watched]:
    def make(stages: Sequence[Stage], **options: object) -> Watched:
        watched = Watched(stages, **options)  # type: ignore[arg-type]
        monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: watched.now))
        return watched

    return make


def some(kind: str, count: int) -> list[Stage]:
    return [fake(kind, {"i": i}, title=f"{kind} {i}") for i in range(count)]


# --- time left ---------------------------------------------------------------------------------------------------


def test_the_time_left_is_the_mean_of_the_kind_times_what_is_left_of_it(watch: Callable[..., Watched]) -> None:
    stages = some("fit", 6)
    watched, seen = watch(stages), []
    for stage, seconds in zip(stages[:-1], (10.0, 20.0, 3.0, 7.0, 15.0), strict=True):
        said = watched.work(stage, seconds)
        seen.append(seconds)
        expected = sum(seen) / len(seen) * (6 - len(seen))
        assert said == f"about {expected:.0f} s left"


def test_different_kinds_have_different_means(watch: Callable[..., Watched]) -> None:
    fits, grades = some("fit", 3), some("grade", 4)
    watched = watch([*fits, *grades])
    watched.work(fits[0], 20)
    assert watched.work(grades[0], 2) == "about 46 s left"  # two fits of 20 s, three grades of 2 s
    assert watched.work(grades[1], 6) == "about 48 s left"  # two fits of 20 s, two grades of 4 s


@pytest.mark.parametrize(
    ("each", "said"), [(44.5, "about 89 s left"), (45, "about 2 min left"), (150, "about 5 min left")]
)
def test_from_a_minute_and_a_half_on_the_time_left_is_in_minutes(
    watch: Callable[..., Watched], each: float, said: str
) -> None:
    stages = some("fit", 3)
    assert watch(stages).work(stages[0], each) == said


@pytest.mark.parametrize(("unseen", "speaks"), [(0, True), (1, True), (2, False), (9, False)])
def test_nothing_is_said_while_more_than_a_tenth_of_what_is_left_is_of_an_unseen_kind(
    watch: Callable[..., Watched], unseen: int, speaks: bool
) -> None:
    stages = some("fit", 11 - unseen) + some("grade", unseen)
    assert bool(watch(stages).work(stages[0], 5)) is speaks  # ten are left


def test_an_artifact_found_in_the_store_counts_as_done_but_not_as_a_time(watch: Callable[..., Watched]) -> None:
    stages = some("fit", 4)
    watched = watch(stages)
    watched.listener.finished(stages[0], computed=False)
    assert watched.left == ""
    assert watched.work(stages[1], 8) == "about 16 s left"
    watched.listener.finished(stages[2], computed=False)
    assert watched.left == "about 8 s left"
    assert watched.lines[0].startswith("[2/4] fit 1: 8.0 s")
    assert len(watched.lines) == 1


def test_when_all_is_done_no_time_is_left(watch: Callable[..., Watched]) -> None:
    stages = some("fit", 2)
    watched = watch(stages)
    assert [watched.work(stage, 3) for stage in stages] == ["about 3 s left", ""]
    assert watched.listener.left == {}
    assert watched.listener.bars.tasks[0].completed == watched.listener.bars.tasks[0].total == 2


# --- lines -------------------------------------------------------------------------------------------------------


def test_off_a_terminal_every_computed_stage_is_one_numbered_line(watch: Callable[..., Watched]) -> None:
    stages = [*some("sample", 1), *some("pair", 1), *some("fit", 1)]
    watched = watch(stages)
    for stage, seconds in zip(stages, (1.25, 0.04, 61), strict=True):
        watched.work(stage, seconds)
    wanted = ["[1/3] sample 0: 1.2 s", "[2/3] pair 0: 0.0 s", "[3/3] fit 0: 61.0 s"]
    assert len(watched.lines) == len(wanted)
    assert all(line.startswith(start) for line, start in zip(watched.lines, wanted, strict=True))


def test_a_stage_without_a_title_goes_by_its_kind_and_brackets_in_a_title_are_text(
    watch: Callable[..., Watched],
) -> None:
    stages = [fake("fit", {}), fake("pair", {}, title="[red]omd(eta=1)[/red]")]
    watched = watch(stages)
    for stage in stages:
        watched.work(stage, 1)
    assert watched.lines[0].startswith("[1/2] fit: ")
    assert watched.lines[1].startswith("[2/2] [red]omd(eta=1)[/red]: ")


def test_on_a_terminal_the_bars_speak_and_no_line_is_printed(watch: Callable[..., Watched]) -> None:
    stages = some("fit", 2)
    watched = watch(stages, terminal=True)
    watched.listener.started(stages[0])
    watched.listener.progressed(stages[0], 3, 12)
    one = watched.listener.bars.tasks[1]
    assert (one.description, one.completed, one.total, one.visible) == ("fit 0", 3, 12, True)
    watched.listener.finished(stages[0], computed=True)
    assert len(watched.listener.bars.tasks) == 1
    assert watched.lines == []


def test_the_bar_of_the_next_stage_starts_at_nothing(watch: Callable[..., Watched]) -> None:
    stages = some("fit", 2)
    watched = watch(stages)
    watched.listener.started(stages[0])
    watched.listener.progressed(stages[0], 5, 5)
    watched.listener.finished(stages[0], computed=True)
    watched.listener.started(stages[1])
    one = watched.listener.bars.tasks[1]
    assert (one.description, one.completed, one.visible) == ("fit 1", 0, True)


# --- failures ----------------------------------------------------------------------------------------------------


def test_a_failure_is_printed_once_and_those_it_takes_along_are_only_noted(watch: Callable[..., Watched]) -> None:
    stages = some("fit", 3)
    watched = watch(stages)
    watched.listener.started(stages[0])
    watched.listener.failed(stages[0], "the judge [x] is gone", "Traceback ...")
    watched.listener.failed(stages[1], "the judge [x] is gone", "")
    assert watched.lines == ["failed: the judge [x] is gone"]
    assert list(watched.listener.left) == [stages[2].key]


def test_a_failed_check_is_left_to_the_caller_to_report(watch: Callable[..., Watched]) -> None:
    (stage,) = some("prompts", 1)
    watched = watch([stage], checks=[stage.key])
    watched.listener.started(stage)
    watched.listener.failed(stage, "too long", "")
    assert watched.lines == []
    assert watched.listener.left == {}


def test_a_stage_that_is_tried_once_more_is_told_and_starts_afresh(watch: Callable[..., Watched]) -> None:
    (stage,) = some("fit", 1)
    watched = watch([stage])
    watched.listener.started(stage)
    watched.listener.retried(stage, "killed by signal 9")
    assert watched.lines == ["fit 0: killed by signal 9; it is tried once more"]
    watched.now += 100
    watched.work(stage, 2)
    assert watched.listener.seconds["fit"] == [2.0]
    assert len(watched.listener.bars.tasks) == 1


def test_a_failed_stage_gives_no_time_to_its_kind(watch: Callable[..., Watched]) -> None:
    stages = some("fit", 4)
    watched = watch(stages)
    watched.listener.started(stages[0])
    watched.now += 1000
    watched.listener.failed(stages[0], "no", "")
    assert watched.left == ""
    assert watched.work(stages[1], 2) == "about 4 s left"


def test_nothing_runs_after_the_end(watch: Callable[..., Watched]) -> None:
    stages = some("fit", 2)
    watched = watch(stages)
    with watched.listener:
        watched.work(stages[0], 1)
        watched.listener.started(stages[1])
        assert set(watched.listener.running) == {stages[1].key}
    assert watched.listener.running == {}


def test_stages_at_work_at_once_have_a_bar_and_a_time_each_and_share_the_time_left(
    watch: Callable[..., Watched],
) -> None:
    stages = some("fit", 6)
    watched = watch(stages, terminal=True)
    for stage in stages[:3]:
        watched.listener.started(stage)
        watched.now += 1
    watched.listener.progressed(stages[1], 2, 4)
    assert [(t.description, t.completed) for t in watched.listener.bars.tasks[1:]] == [
        ("fit 0", 0),
        ("fit 1", 2),
        ("fit 2", 0),
    ]
    assert list(watched.listener.running) == [stage.key for stage in stages[:3]]
    watched.now = 20
    watched.listener.finished(stages[1], computed=True)
    assert watched.listener.seconds["fit"] == [19.0]  # begun at 1
    assert watched.left == "about 32 s left"  # five of 19 s, three at once
    watched.listener.failed(stages[0], "no", "")
    assert [t.description for t in watched.listener.bars.tasks[1:]] == ["fit 2"]
    assert list(watched.listener.running) == [stages[2].key]


# --- order and text of stages ------------------------------------------------------------------------------------


def random_graph(seed: int, size: int = 25) -> list[Stage]:
    rng, stages = random.Random(seed), list[Stage]()
    for i in range(size):
        sources = rng.sample(stages, min(len(stages), rng.randrange(4)))
        stages.append(fake("fit", {"i": i}, {f"in{n}": s for n, s in enumerate(sources)}))
    return stages


@pytest.mark.parametrize("seed", range(5))
def test_stages_come_once_each_and_after_what_they_read_in_whatever_order_they_are_asked_for(seed: int) -> None:
    stages = random_graph(seed)
    asked = stages + stages[::3]
    random.Random(seed).shuffle(asked)
    place = {stage.key: i for i, stage in enumerate(in_order(asked))}
    assert set(place) == {s.key for s in stages}
    assert len(in_order(asked)) == len(stages)
    assert all(place[source.key] < place[s.key] for s in stages for source in s.inputs.values())


def test_only_what_a_stage_reads_is_brought_along_and_equal_stages_are_one() -> None:
    root, other = fake("pocket", {"seed": 0}), fake("pocket", {"seed": 1})
    left, right = (
        fake("fit", {"a": 1}, {"start": root}),
        fake("fit", {"a": 2}, {"start": fake("pocket", {"seed": 0})}),
    )
    top = fake("grade", {}, {"answers": left, "baseline": right})
    assert [s.key for s in in_order([top])] == [root.key, left.key, right.key, top.key]
    assert other.key not in {s.key for s in in_order([top])}
    assert in_order([]) == []


def test_stages_in_order_stay_in_order() -> None:
    ordered = in_order(random_graph(7))
    assert [s.key for s in in_order(ordered)] == [s.key for s in ordered]
