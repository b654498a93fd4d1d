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
import re
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

FIGURES = {
    "inst_level_strict_acc": "share of all documents' instructions that are followed",
    "inst_level_loose_acc": "the same, formatting aside",
    "mcc": "Matthews' correlation of chosen and right answers",
    "bleu": "BLEU of generated and right answers over all documents",
    "chrf": "chrF of generated and right answers over all documents",
    "word_perplexity": "perplexity a word of all documents",
    "byte_perplexity": "perplexity a byte of all documents",
    "bits_per_byte": "bits a byte of all documents",
    "perplexity": "perplexity of the right continuations",
}
"""lm-eval's metrics that are one number of all documents: kept as it gives them, without an interval. Any other metric
whose figure turns out to be no mean over documents is kept so too."""

UNITS = {"mcc": "correlation", "bleu": "BLEU", "chrf": "chrF", "bits_per_byte": "bits"}
LOWER = ("word_perplexity", "byte_perplexity", "bits_per_byte", "perplexity")

LEADING = (
    (r"arc_challenge|hellaswag|leaderboard_(bbh|gpqa|musr).*|openbookqa|piqa", ("acc_norm",)),
    (r".*", ("acc", "exact_match", "prompt_level_strict_acc")),
)
"""By which metric a task's policies are compared, where it has it: pattern of the task's name -> metrics, as the Open
LLM Leaderboards (versions 1 and 2) lead; else by its first one that is a mean over documents."""


@dataclass(frozen=True, kw_only=True)
class LMEval(Leaderboard):
    """Tasks of lm-eval. It opens the checkpoint itself, and no judge grades.

    Thinking is not taken out of answers. A metric that is a mean over documents has an interval and a value a document;
    of any other (`inst_level_strict_acc`, `mcc`, perplexities) lm-eval's figure is kept as it is.

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
    is_of_tasks = True
    metrics = {
        name: Metric(unit="share", better="higher", estimates=estimates, official=True, bounds=SHARE)
        for name, estimates in MEANS.items()
    } | {
        name: Metric(
            unit=UNITS.get(name, "perplexity" if "perplexity" in name else "share"),
            better="lower" if name in LOWER else "higher",
            estimates=estimates,
            official=True,
        )
        for name, estimates in FIGURES.items()
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

    def notes(self) -> list[str]:
        """One note of the metrics that have no interval, by the tasks' own lists of metrics."""
        configs = self._configs if self.data is not None else _configs_of(self._named)
        figures = sorted({name for config in configs for name in _metric_names(config) if name in FIGURES})
        if not figures:
            return []
        return [
            f"lm-eval: {', '.join(figures)} is one number of all documents: it is shown without an interval, and "
            "policies are not compared by it"
        ]

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
            number), `status`, `category` (the task; "task,filter" where it has several filters). Of a metric that is no
            mean over documents one item alone, with the id "task", lm-eval's figure as `value`, and `documents` in
            `extra`. Metrics that are not known are left out.

        Raises:
            ValueError: for a task that lm-eval cannot find, or one without any metric that is known.
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
        for item in _of_documents(items):
            values[item.category, item.metric].append(math.nan if item.value is None else item.value)
        scores = [
            Score.of(metric, mean_estimate(of_documents, bounds=SHARE), category)
            for (category, metric), of_documents in values.items()
        ]
        return scores + [
            Score(
                metric=item.metric,
                value=math.nan if item.value is None else item.value,
                n=item.extra["documents"],
                category=item.category,
            )
            for item in items
            if "documents" in item.extra
        ]

    def by_prompt(self, items: Sequence[GradedItem]) -> dict[str, dict[str, float | None]]:
        """Metric -> item id -> value, of one metric (and its first filter) a task: the one that it leads with."""
        kinds_by_task: dict[str, list[tuple[str, str]]] = defaultdict(list)
        items = _of_documents(items)
        for item in items:
            kinds_by_task[item.id.rpartition("/")[0]].append((item.metric, item.category))
        chosen = {task: _leading(task, kinds) for task, kinds in kinds_by_task.items()}
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
            for metric in _metric_names(config):
                if metric not in self.metrics:
                    raise BoardError(
                        f"lm-eval: metric {metric!r} of task {config['task']} is not known; there is "
                        f"{', '.join(sorted(self.metrics))}"
                    )


@cache
def _own_tasks() -> tuple[str, ...]:
    """The tasks, groups and tags that lm-eval brings; it reads all its task files to tell them, for some seconds."""
    from lm_eval.tasks import TaskManager

    with _quiet():
        return tuple(TaskManager().all_tasks)


def _configs_of(names: Sequence[str]) -> list[Mapping[str, Any]]:
    """What lm-eval's own files say of these tasks; groups and tags are left out."""
    from lm_eval.tasks import TaskManager

    with _quiet():
        index = TaskManager().task_index
    return [index[name].cfg or {} for name in names if name in index]


def _refuse_unknown(names: Sequence[str], available: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(available))
    if unknown:
        near = {name: " or ".join(map(repr, difflib.get_close_matches(name, available))) for name in unknown}
        hints = ", ".join(f"{name!r} (did you mean {near[name]}?)" if near[name] else repr(name) for name in unknown)
        raise ValueError(f"lm-eval: there is no task, group or tag {hints}; `lm-eval ls tasks` lists all")


def _items(task: str, samples: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> Iterator[GradedItem]:
    """The items of a task: one a document of metrics that are means over these, one alone of other known metrics.

    Raises:
        BoardError: no metric of the task is known.
    """
    filters = dict.fromkeys(sample["filter"] for sample in samples)
    kinds = [(name, filter) for filter in filters for name in _figures_of(results, filter)]
    known = [(name, filter) for name, filter in kinds if name in LMEval.metrics]
    if not known:
        names = ", ".join(dict.fromkeys(name for name, _ in kinds)) or "none"
        raise BoardError(f"lm-eval: no metric of task {task} is known ({names}); there is {', '.join(LMEval.metrics)}")
    for metric, filter in known:
        category = f"{task},{filter}" if len(filters) > 1 else task
        official = results[f"{metric},{filter}"]
        of = [sample for sample in samples if sample["filter"] == filter]
        values = _document_values(metric, of, official)
        if values is None:
            extra = {"documents": len(of)}
            value = float(official) if math.isfinite(official) else None
            yield GradedItem(id=task, metric=metric, value=value, status="not-a-number", category=category, extra=extra)
            continue
        for sample, value in zip(of, values, strict=True):
            yield GradedItem(
                id=f"{task}/{sample['doc_id']}",
                prompt=str(sample["arguments"][0][0]),
                response=_response(sample),
                metric=metric,
                value=value,
                status="not-a-number",
                category=category,
            )


def _figures_of(results: Mapping[str, Any], filter: str) -> list[str]:
    """The metrics that lm-eval has a figure of under a filter, standard errors aside."""
    parts = (key.rpartition(",") for key, value in results.items() if isinstance(value, int | float))
    return [name for name, _, of in parts if of == filter and name and not name.endswith("_stderr")]


def _document_values(metric: str, samples: Sequence[Mapping[str, Any]], official: float) -> list[float | None] | None:
    """The metric of each document, None where it is no number; None alone where lm-eval's figure is not their mean."""
    of = [sample.get(metric) for sample in samples]
    if metric in FIGURES or not all(isinstance(value, int | float) for value in of):
        return None
    values = [float(value) if math.isfinite(value) else None for value in of]  # type: ignore[arg-type]
    finite = [value for value in values if value is not None]
    if len(finite) < len(of):
        return values
    return values if math.isclose(sum(finite) / len(finite), official, rel_tol=1e-9, abs_tol=1e-12) else None


def _of_documents(items: Sequence[GradedItem]) -> list[GradedItem]:
    return [item for item in items if "documents" not in item.extra]


def _response(sample: Mapping[str, Any]) -> str:
    """What was generated, or the choice with the greatest log-probability."""
    answers = [response[0] for response in sample["resps"]]
    if isinstance(answers[0], str):
        return answers[0]
    best = max(range(len(answers)), key=lambda i: answers[i][0])
    return str(sample["arguments"][best][1])


def _leading(task: str, kinds: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Of a task's (metric, category) the one that it leads with."""
    order = [metric for pattern, metrics in LEADING if re.fullmatch(pattern, task) for metric in metrics]
    return min(kinds, key=lambda kind: order.index(kind[0]) if kind[0] in order else len(order))


def _metric_names(config: Mapping[str, Any]) -> list[str]:
    """The metrics that a task's file lists; none where it leaves them to lm-eval."""
    return [str(m["metric"] if isinstance(m, dict) else m) for m in config.get("metric_list") or ()]


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
