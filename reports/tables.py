"""Reading a sweep's directory: the tables as plain rows, whatever of them is already there."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reports import schema

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
T = TypeVar("T")

CONTROLS = ("sft", "constant", "longest")
POINTS_PER_LINE = 60


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One sweep's directory as rows of plain Python values: a missing or NaN number is None, a missing text is ''.

    `absent` names what is not there, `notes` says what could not be read; neither raises.
    """

    name: str
    results: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)
    dynamics: list[Row] = field(default_factory=list)
    samples: list[Row] = field(default_factory=list)
    judges: list[Row] = field(default_factory=list)
    algorithms: list[Row] = field(default_factory=list)
    trials: list[Row] = field(default_factory=list)
    metrics: dict[str, Row] = field(default_factory=dict)
    cells: list[Row] = field(default_factory=list)
    config: str = ""
    provenance: Row = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def meta(self, leaderboard: str, metric: str) -> Row:
        """What metrics.json says of a metric ({} when it says nothing); 'leaderboard/metric' goes before 'metric'."""
        return self.metrics.get(f"{leaderboard}/{metric}") or self.metrics.get(metric) or {}

    @cached_property
    def info(self) -> dict[str, Row]:
        """Each cell's policy, trainer, options, judge, seed; `arm` (trainer, options), `label` (and policy)."""
        info: dict[str, Row] = {}
        for row in [*self.cells, *self.results]:
            info.setdefault(row["cell"], {key: row[key] for key in ("policy", "trainer", "options", "judge", "seed")})
        arms = arm_labels(info.values())
        several = len({row["policy"] for row in info.values()}) > 1
        for row in info.values():
            row["arm"] = arms[row["trainer"], row["options"]]
            row["label"] = f"{row['arm']} · {short(row['policy'])}" if several else row["arm"]
        return info

    @cached_property
    def one_policy(self) -> bool:
        """Whether all cells start from one policy."""
        return len({row["policy"] for row in self.info.values()}) == 1

    def display_name(self, name: str) -> str:
        """How a reader calls a cell, or an algorithm (what all seeds of a cell share); any other name as it is.

        That is its label and training judge, and its seed where the sweep has several.
        """
        return self._names.get(name, name)

    @cached_property
    def _names(self) -> dict[str, str]:
        several = len({row["seed"] for row in self.info.values() if row["judge"]}) > 1
        algorithms = {row["cell"]: row["algorithm"] for row in self.cells}
        names: dict[str, str] = {}
        for cell, row in self.info.items():
            name = " · ".join(filter(None, (row["label"], row["judge"])))
            names[cell] = f"{name} · seed {row['seed']}" if several and row["seed"] is not None else name
            if algorithm := algorithms.get(cell):
                names.setdefault(algorithm, name)
        return names

    @cached_property
    def final(self) -> list[Row]:
        """The result rows of each cell's highest iteration."""
        last: dict[str, int] = {}
        for row in self.results:
            last[row["cell"]] = max(row["iteration"] or 0, last.get(row["cell"], 0))
        return [row for row in self.results if (row["iteration"] or 0) == last[row["cell"]]]

    @cached_property
    def compared(self) -> dict[tuple[str, str, str, str, str], list[Row]]:
        """The comparisons by (leaderboard, metric, task, grader, claim)."""
        return grouped(self.comparisons, lambda row: (*compared_by(row), row["claim"]))

    @cached_property
    def paired(self) -> dict[tuple[tuple[str, str, str, str], frozenset[str]], Row]:
        """The comparison of two cells or algorithms by (leaderboard, metric, task, grader), {a, b}."""
        return {(compared_by(row), frozenset((row["a"], row["b"]))): row for row in self.comparisons}

    @cached_property
    def means(self) -> dict[tuple[tuple[str, str, str, str], str], Row]:
        """An algorithm's mean over seeds by (leaderboard, metric, task, grader), algorithm."""
        return {(compared_by(row), row["algorithm"]): row for row in self.algorithms}

    @cached_property
    def algorithm_of(self) -> dict[str, str]:
        """Cell -> the id that all its seeds share, where cells.json has it."""
        return {row["cell"]: row.get("algorithm", "") for row in self.cells}


def compared_by(row: Row) -> tuple[str, str, str, str]:
    """(leaderboard, metric, task, grader) of a row of comparisons or algorithms."""
    return row["leaderboard"], row["metric"], row.get("category") or "", row["grader"]


def is_control(row: Row) -> bool:
    """Whether a row belongs to a control: an arm that nothing trained."""
    return row["trainer"] in CONTROLS and not row["judge"]


def game_verdicts(row: Row) -> list[str]:
    """The verdicts of a sample's games, in the order they were played, where the board keeps them; failed ones left
    out.
    """
    kept = _options(row["extra"])
    return [str(kept[name]) for name in ("first_game", "second_game") if kept.get(name)]


def unique(values: Iterable[Any]) -> list[Any]:
    """The distinct values in order of first appearance."""
    return list(dict.fromkeys(values))


def grouped(rows: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Rows (or anything else) by key, keys in order of first appearance."""
    groups: dict[Any, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def arm_labels(cells: Iterable[Row]) -> dict[tuple[str, str], str]:
    """A label for each (trainer, options): the trainer, and the options in which its arms differ."""
    arms = unique((row["trainer"], row["options"]) for row in cells)
    named = bare_names(trainer for trainer, _ in arms)
    labels = {}
    for trainer, options in arms:
        rivals = [_options(other) for name, other in arms if name == trainer]
        own = _options(options)
        differing = [key for key in sorted(own) if any(rival.get(key) != own[key] for rival in rivals)]
        labels[trainer, options] = " · ".join([named[trainer], *(f"{key} {compact(own[key])}" for key in differing)])
    return labels


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """Each name without brackets at its end, where no other one is called so: `dpo` for `dpo(beta=1)`."""
    distinct = unique(names)
    bare = {name: re.sub(r"(?<=.)\(.*\)$", "", name) for name in distinct}
    return {name: bare[name] if list(bare.values()).count(bare[name]) == 1 else name for name in distinct}


def compact(value: Any) -> str:
    """A value of a JSON document as short text: strings as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def short(policy: str) -> str:
    """The last component of a policy's name or path."""
    return policy.rstrip("/").rpartition("/")[2] or policy


def read_sweep(path: Path) -> Sweep:
    """The sweep in a directory.

    Raises ValueError where `path` is no directory. Files that are missing or cannot be read become notes.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is no directory: give the directory that `nashbench sweep` wrote")
    files = _Files(path)
    results = _timed(_rows(files.table("results")), _rows(files.table("timings", needed=False)))
    return Sweep(
        name=next((row["sweep"] for row in results if row["sweep"]), path.resolve().name),
        results=results,
        comparisons=_rows(files.table("comparisons")),
        dynamics=_rows(_thinned(files.table("dynamics"))),
        samples=files.samples(),
        judges=_rows(files.table("judges", needed=False)),
        algorithms=_rows(files.table("algorithms", needed=False)),
        trials=_rows(files.table("trials", needed=False)),
        metrics={name: meta for name, meta in files.document("metrics.json", {}).items() if isinstance(meta, dict)},
        cells=[_cell(row) for row in files.document("cells.json", []) if isinstance(row, dict)],
        config=files.text("config.yaml"),
        provenance=files.document("provenance.json", {}),
        absent=tuple(files.absent),
        notes=tuple(files.notes),
    )


def _timed(results: list[Row], timings: list[Row]) -> list[Row]:
    """The results with the seconds of training, which stand apart: they differ where all else is equal."""
    seconds = {(row["cell"], row["iteration"]): row["seconds"] for row in timings}
    return [row | {"seconds": seconds.get((row["cell"], row["iteration"]), row.get("seconds"))} for row in results]


def read_sweeps(paths: Sequence[Path]) -> list[Sweep]:
    """The sweeps of several directories, equal names told apart by a number. Raises ValueError without any path."""
    if not paths:
        raise ValueError("no sweep to report on: give at least one directory that `nashbench sweep` wrote")
    sweeps: list[Sweep] = []
    for path in paths:
        sweep = read_sweep(Path(path))
        names = {other.name for other in sweeps}
        name, number = sweep.name, 2
        while name in names:
            name, number = f"{sweep.name} ({number})", number + 1
        sweeps.append(replace(sweep, name=name))
    return sweeps


def _options(text: str) -> Row:
    """A JSON object; anything else as the only entry, `options`."""
    try:
        parsed = json.loads(text or "{}")
    except ValueError:
        return {"options": text}
    return parsed if isinstance(parsed, dict) else {"options": parsed}


class _Files:
    """Reads the files of one directory and remembers which were absent or could not be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.absent: list[str] = []
        self.notes: list[str] = []

    def text(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            self.absent.append(name)
            return ""

    def document(self, name: str, empty: Any) -> Any:
        text = self.text(name)
        try:
            content = json.loads(text) if text else empty
        except ValueError:
            self.notes.append(f"{name} is not valid JSON")
            return empty
        if isinstance(content, type(empty)):
            return content
        self.notes.append(f"{name} holds a {type(content).__name__} where a {type(empty).__name__} was expected")
        return empty

    def table(self, name: str, *, needed: bool = True) -> pd.DataFrame | None:
        for file in (self.path / f"{name}.parquet", self.path / f"{name}.csv"):
            if file.is_file() and file.stat().st_size:
                frame = self.frame(file, name)
                if frame is not None:
                    return frame
        self.absent += [name] * needed
        return None

    def frame(self, file: Path, name: str) -> pd.DataFrame | None:
        try:
            return _shaped(_read(file, name), name)
        except (OSError, ValueError) as error:
            self.notes.append(f"{file.name} cannot be read: {str(error).splitlines()[0][:200]}")
            return None

    def samples(self) -> list[Row]:
        files = sorted((self.path / "samples").glob("*.parquet"))
        if not files:
            self.absent.append("samples")
        return [row for file in files for row in _rows(self.frame(file, "samples"))]


def _cell(row: Row) -> Row:
    options = row.get("options") or ""
    return {
        "cell": str(row.get("cell", "")),
        "algorithm": str(row.get("algorithm") or ""),
        "policy": compact(row.get("policy") or ""),
        "trainer": str(row.get("trainer") or ""),
        "options": options if isinstance(options, str) else json.dumps(options, sort_keys=True),
        "judge": str(row.get("judge") or ""),
        "seed": row.get("seed"),
        "state": str(row.get("state") or "missing"),
        "reason": str(row.get("reason") or ""),
        "stages": list(row.get("stages") or []),
    }


def _read(file: Path, name: str) -> pd.DataFrame:
    import pandas as pd

    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    numbers = schema.of_kind(name, "number", "count", "flag")
    return pd.read_csv(file, keep_default_na=False, na_values={column: ["", "nan", "NaN"] for column in numbers})


def _shaped(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """All of the table's columns and no others: texts as str with '' for none, all others as numbers."""
    import pandas as pd

    frame = frame.reindex(columns=schema.names(name))
    for column in schema.of_kind(name, "text"):
        missing = frame[column].isna()
        frame[column] = frame[column].astype(object).where(~missing, "").map(str)
    for column in schema.of_kind(name, "number", "count", "flag"):
        frame[column] = pd.to_numeric(frame[column], errors="coerce").astype("float64")
    return frame


def _rows(frame: pd.DataFrame | None) -> list[Row]:
    if frame is None:
        return []
    names = [str(name) for name in frame.columns]
    columns = [[_plain(value) for value in frame[name].to_numpy(dtype=object).tolist()] for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """A table's entry as plain Python: NaN is None, a whole number an int."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _thinned(frame: pd.DataFrame | None) -> pd.DataFrame | None:
    """At most POINTS_PER_LINE rows a cell and metric, the first and the last among them; alarms that rang all stay."""
    if frame is None or frame.empty:
        return frame
    groups = frame.groupby(["cell", "metric"], sort=False)
    position = groups.cumcount()
    last = groups["value"].transform("size") - 1
    stride = (-(-last // (POINTS_PER_LINE - 1))).clip(lower=1)
    triggered = frame["metric"].str.startswith("alarm:") & (frame["value"] == 1)
    # Every stride-th row, counted from the end so that the final figure is always among them.
    return frame[((last - position) % stride == 0) | (position == 0) | triggered]
