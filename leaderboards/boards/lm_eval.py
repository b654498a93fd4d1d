"""lm-eval: tasks of the Language Model Evaluation Harness, run by itself on the checkpoint.

Follows lm-eval 0.4.13, `simple_evaluate`. A figure is the mean over documents, which is checked against lm-eval's own;
its interval is over documents.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import logging
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from leaderboards.leaderboard import BoardError, Leaderboard, data_path
from leaderboards.records import GradedItem, Metric, Score
from leaderboards.statistics.intervals import mean_estimate

WHAT = "a folder with lm-eval task files (*.yaml) and the data they name, or name lm-eval's own tasks with tasks"
MEANS = {
    "acc": "share of documents whose right choice is the likeliest",
    "acc_norm": "the same, log-probabilities divided by the choices' lengths in characters",
    "acc_bytes": "the same, log-probabilities divided by the choices' lengths in bytes",
    "acc_mutual_info": "the same, less each choice's log-probability without the question",
    "exact_match": "share of documents whose generated answer is the right one",
    "em": "share of documents whose generated answer is the right one",
    "f1": "mean overlap of generated and right answer, in 0..1",
    "likelihood": "mean probability of the right choice among the choices",
    "pass@1": "share of documents whose generated program passes its tests",
    "prompt_level_strict_acc": "share of documents all of whose instructions are followed",
    "prompt_level_loose_acc": "the same, formatting aside",
}
"""lm-eval's metrics that are means over documents of a share; in 0..1, as lm-eval gives them, more is better."""

SHARE = (0.0, 1.0)

NO_PROVENANCE: dict[str, Any] = {"add_env_info": lambda results: None, "get_git_commit_hash": lambda: ""}
"""In place of lm-eval's own record of the environment: it takes a second of `pip` and `git`; the harness has one."""

NO_MEAN = "so it is no mean over documents and has no interval here; leave the metric out"

LEADING = ("acc", "exact_match")  # by which policies are compared, where a task has it; else its first metric


@dataclass(frozen=True, kw_only=True)
class LMEval(Leaderboard):
    """Tasks of lm-eval. It opens the checkpoint itself, and no judge grades.

    Thinking is not taken out of answers. Only metrics that are means over documents are known.

    Args:
        data: a folder of task files (*.yaml, at any depth). Files that a task names by a relative path are relative to
            this folder. Nothing is downloaded for them.
        tasks: names of tasks, groups or tags, a list or a text with commas; by default every task in `data`. Without
            `data` they are lm-eval's own, which download what they need.
        limit: at most this many documents a task, the first ones.
        batch_size: sequences at once.
        num_fewshot: examples before each question, in place of the tasks' own number.
        apply_chat_template: render questions by the tokenizer's chat template. lm-eval's own default is plain text,
            which gets a BOS only where the tokenizer writes one by itself.

    Raises:
        ValueError: for data that is missing or of another kind, and for tasks or metrics that are unknown.
    """

    data: str | Path | None = None
    tasks: str | Sequence[str] | None = None
    limit: int | None = None
    batch_size: int = 64
    num_fewshot: int | None = None
    apply_chat_template: bool = False

    name = "lm-eval"
    paths = ("data",)
    package = "lm_eval"
    opens_checkpoint = True
    metrics = {  # noqa: RUF012
        name: Metric(unit="share", better="higher", estimates=estimates, official=True, bounds=SHARE)
        for name, estimates in MEANS.items()
    }

    def __post_init__(self) -> None:
        for name, least in (("limit", 2), ("batch_size", 1), ("num_fewshot", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{self.name}: {name} is {value}; it must be at least {least}")
        if self.tasks is not None and not self._named:
            raise ValueError(f"{self.name}: tasks is {self.tasks!r}; name at least one, such as arc_easy")
        if self.data is not None or self.tasks is None:
            self._check_tasks()

    def check(self) -> None:
        """Refuse names that are none of lm-eval's own tasks, where these are asked for; downloads nothing.

        Raises:
            ValueError: with every unknown name and those nearest to it.
        """
        if self.data is None:
            _refuse_unknown(self._named, _own_tasks())

    def evaluate(self, checkpoint: str | Path) -> list[GradedItem]:
        """Run the tasks on a checkpoint: a folder or hub id that `transformers` loads, or peft's folder of an
        adapter. Not for several threads at once: lm-eval seeds the global random generators, and the working directory
        changes for the while.

        Returns:
            One item a task, filter, document and metric: `id` ("task/document"), `prompt` (the text before the
            answer), `response` (the likeliest choice, or what was generated), `metric`, `value` (None where it is no
            number), `status`, `category` (the task; "task,filter" where it has several filters).

        Raises:
            ValueError: for a metric that is unknown or no mean over documents, or a task that lm-eval cannot find.
        """
        import lm_eval
        import torch
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        device = "cuda" if torch.cuda.is_available() else "cpu"
        opened = _opened(checkpoint)
        folder = None if self.data is None else Path(self.data).resolve()
        # A task's relative paths are relative to the working directory.
        with _quiet(), contextlib.chdir(folder or "."), patch.multiple("lm_eval.evaluator", **NO_PROVENANCE):
            manager = TaskManager(include_path=folder, include_defaults=folder is None)
            _refuse_unknown(self._names, manager.all_tasks)
            evaluated = lm_eval.simple_evaluate(
                model=HFLM(**opened, device=device, batch_size=self.batch_size),
                tasks=self._names,
                num_fewshot=self.num_fewshot,
                limit=self.limit,
                apply_chat_template=self.apply_chat_template,
                bootstrap_iters=0,
                log_samples=True,
                task_manager=manager,
            )
        return [
            item
            for task, samples in evaluated["samples"].items()
            for item in _items(task, samples, evaluated["results"][task])
        ]

    def rate(self, items: Sequence[GradedItem], seed: int) -> list[Score]:
        """A score for every task, filter and metric; the category is that of the items."""
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for item in items:
            values[item.category, item.metric].append(math.nan if item.value is None else item.value)
        return [
            Score.of(metric, mean_estimate(of_documents, bounds=SHARE), category)
            for (category, metric), of_documents in values.items()
        ]

    def by_prompt(self, items: Sequence[GradedItem]) -> dict[str, dict[str, float | None]]:
        """Metric -> item id -> value, of one metric (and its first filter) a task: acc, exact_match or the first."""
        kinds_by_task: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for item in items:
            kinds_by_task[item.id.rpartition("/")[0]].append((item.metric, item.category))
        chosen = {task: min(kinds, key=lambda kind: _rank(kind[0])) for task, kinds in kinds_by_task.items()}
        values: dict[str, dict[str, float | None]] = defaultdict(dict)
        for item in items:
            if (item.metric, item.category) == chosen[item.id.rpartition("/")[0]]:
                values[item.metric][item.id] = item.value
        return dict(values)

    @property
    def _named(self) -> list[str]:
        """The tasks asked for by name."""
        given = self.tasks.split(",") if isinstance(self.tasks, str) else self.tasks or ()
        return [name.strip() for name in given if name.strip()]

    @property
    def _names(self) -> list[str]:
        """The tasks to run."""
        return self._named or [config["task"] for config in self._configs if _is_name(config, "task")]

    @cached_property
    def _configs(self) -> list[dict[str, Any]]:
        """What the task files say, files included by others and functions left out."""
        folder = data_path(self.name, self.data, WHAT)
        configs = [_read_task(path) for path in sorted(folder.rglob("*.yaml"))]
        return [config for config in configs if "task" in config or "group" in config]

    def _check_tasks(self) -> None:
        """As far as the files tell without lm-eval, which takes seconds to import."""
        named = [str(config[kind]) for config in self._configs for kind in ("group", "task") if _is_name(config, kind)]
        if not named:
            raise ValueError(f"{self.data} holds no task file; give {WHAT}")
        twice = [name for name in named if named.count(name) > 1]
        if twice:
            raise ValueError(f"{self.data}: two files define the task {twice[0]!r}; lm-eval would take either")
        tags = {tag for config in self._configs for tag in _listed(config.get("tag"))}
        unknown = [name for name in self._named if name not in tags | set(named)]
        if unknown:
            raise ValueError(f"{self.data} has no task {unknown[0]!r}; there is {', '.join(sorted(tags | set(named)))}")
        for config in self._configs:
            for metric in config.get("metric_list") or ():
                _check_metric(str(metric["metric"] if isinstance(metric, dict) else metric), str(config["task"]))


@cache
def _own_tasks() -> tuple[str, ...]:
    """The tasks, groups and tags that lm-eval brings; it reads all its task files to tell them, for some seconds."""
    from lm_eval.tasks import TaskManager

    with _quiet():
        return tuple(TaskManager().all_tasks)


def _refuse_unknown(names: Sequence[str], available: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(available))
    if unknown:
        near = {name: " or ".join(map(repr, difflib.get_close_matches(name, available))) for name in unknown}
        hints = ", ".join(f"{name!r} (did you mean {near[name]}?)" if near[name] else repr(name) for name in unknown)
        raise ValueError(f"lm-eval: there is no task, group or tag {hints}; `lm-eval ls tasks` lists all")


def _items(task: str, samples: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> Iterator[GradedItem]:
    """The items of a task, checked: known metrics that are means over documents."""
    filters = dict.fromkeys(sample["filter"] for sample in samples)
    kinds = dict.fromkeys((name, sample["filter"]) for sample in samples for name in sample["metrics"])
    for metric, filter in kinds:
        _check_metric(metric, task)
        of = [sample for sample in samples if sample["filter"] == filter and metric in sample]
        if any(isinstance(sample[metric], tuple | list | str) for sample in of):
            raise BoardError(f"lm-eval: {metric} of task {task} has no number a document, {NO_MEAN}")
        values = [float(sample[metric]) if math.isfinite(sample[metric]) else None for sample in of]
        finite = [value for value in values if value is not None]
        official = results[f"{metric},{filter}"]
        if len(finite) == len(of) and not math.isclose(
            sum(finite) / len(finite), official, rel_tol=1e-9, abs_tol=1e-12
        ):
            raise BoardError(f"lm-eval: {metric} of task {task} is {official}, {NO_MEAN}")
        for sample, value in zip(of, values, strict=True):
            yield GradedItem(
                id=f"{task}/{sample['doc_id']}",
                prompt=str(sample["arguments"][0][0]),
                response=_response(sample),
                metric=metric,
                value=value,
                status="not-a-number",
                category=f"{task},{filter}" if len(filters) > 1 else task,
            )


def _response(sample: Mapping[str, Any]) -> str:
    """What was generated, or the choice with the greatest log-probability."""
    answers = [response[0] for response in sample["resps"]]
    if isinstance(answers[0], str):
        return answers[0]
    best = max(range(len(answers)), key=lambda i: answers[i][0])
    return str(sample["arguments"][best][1])


def _rank(metric: str) -> int:
    return LEADING.index(metric) if metric in LEADING else len(LEADING)


def _check_metric(metric: str, task: str) -> None:
    if metric not in MEANS:
        raise BoardError(f"lm-eval: metric {metric!r} of task {task} is not known; there is {', '.join(sorted(MEANS))}")


def _is_name(config: Mapping[str, Any], kind: str) -> bool:
    """Whether the file defines a task (or group) of that name: a group lists its tasks under the same key."""
    return isinstance(config.get(kind), str) and not (kind == "task" and "group" in config)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


class _Loader(yaml.SafeLoader):
    """Reads `!function module.name` as nothing: what it names is lm-eval's to import."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def _read_task(path: Path) -> dict[str, Any]:
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return config if isinstance(config, dict) else {}


def _opened(checkpoint: str | Path) -> dict[str, str]:
    """What lm-eval calls a checkpoint: a folder by its full path, an adapter by its base and its own folder."""
    folder = Path(checkpoint)
    path = str(folder.resolve()) if folder.exists() else str(checkpoint)
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        return {"pretrained": path}
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return {"pretrained": base, "peft": path, "tokenizer": path}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, warnings and log lines on the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        nowhere = io.StringIO()
        with (
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            warnings.catch_warnings(action="ignore"),
        ):
            yield
    finally:
        logging.disable(before)
