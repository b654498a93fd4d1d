"""Runs every case, ours and theirs in turn, each in a process of its own: a table, and `benchmarks/results.json`.

`python -m benchmarks [--repetitions N] [--only update,sampling,...]`. Ratios are ours over theirs: of speed (more is
better) and of memory (less is better); figures are medians over the repetitions. Other work on the machine makes times
noisy: leave it alone for the ten minutes that all cases take. `OMP_WAIT_POLICY=PASSIVE` must not be set: threads that
sleep while they wait make small operations several times slower.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.update import CASES, PAIRS

RESULTS = Path(__file__).with_name("results.json")
Runs = list[dict[str, Any]]


def run(file: str, side: str, case: str, *more: str) -> dict[str, Any]:
    """The result of one run in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{file}", "--side", side, "--case", case, *more]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("RESULT ")]
    if ended.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} failed:\n{ended.stderr[-2000:]}")
    return dict(json.loads(lines[-1].removeprefix("RESULT ")))


def interleaved(file: str, case: str, repetitions: int) -> tuple[Runs, Runs]:
    """Runs of ours and theirs in turn."""
    both: dict[str, Runs] = {"ours": [], "theirs": []}
    for _ in range(repetitions):
        for side, runs in both.items():
            runs.append(run(file, side, case))
    return both["ours"], both["theirs"]


def over(ours: Runs, theirs: Runs, name: str) -> float:
    """The median figure of ours over that of theirs."""
    return median(r[name] for r in ours) / median(r[name] for r in theirs)


def update(repetitions: int) -> dict[str, Any]:
    """The update against TRL with precomputed reference, and the losses of every kind step by step."""
    ours, theirs = interleaved("update", "sigmoid", repetitions)
    differences = {case: loss_difference(case) for case in CASES}
    return {
        "ratio": 1 / over(ours, theirs, "seconds"),
        "scoring_ratio": 1 / over(ours, theirs, "scoring_seconds"),
        "memory_ratio": over(ours, theirs, "peak_mib"),
        "loss_difference": max(differences.values()),
        "loss_differences": differences,
        "pairs_per_s": {"ours": _rate(ours), "theirs": _rate(theirs)},
        "peak_mib": {"ours": median(r["peak_mib"] for r in ours), "theirs": median(r["peak_mib"] for r in theirs)},
    }


def _rate(runs: Runs) -> float:
    return PAIRS / median(r["seconds"] for r in runs)


def loss_difference(case: str, count: int = PAIRS) -> float:
    """The largest relative difference of our loss and TRL's at the same step, over 16 steps from the same weights."""
    ours, theirs = (run("update", side, case, "--pairs", str(count))["losses"] for side in ("ours", "theirs"))
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def phases(repetitions: int) -> dict[str, Any]:
    """Speed of each phase over DPO's, paired within a process."""
    return run("update", "ours", "phases")


def sampling(repetitions: int) -> dict[str, Any]:
    """Tokens a second against `generate`."""
    fixed, varied = (interleaved("sampling", case, repetitions) for case in ("fixed", "varied"))
    return {
        "ratio_fixed": over(*fixed, "tokens_per_s"),
        "ratio_varied": over(*varied, "tokens_per_s"),
        "tokens_per_s": {"ours": median(r["tokens_per_s"] for r in fixed[0])},
    }


def mixture(repetitions: int) -> dict[str, Any]:
    """Time of mixture sampling over that of plain sampling, and a stream step's time outside of its work."""
    mixed, stream = (interleaved("sampling", case, repetitions) for case in ("mixture", "stream"))
    return {
        "ratio": over(*mixed, "seconds"),
        "ratio_stream": over(*stream, "seconds"),
        "stream_outside": median(r["outside"] for r in stream[0]),
    }


GROUPS: dict[str, Callable[[int], dict[str, Any]]] = {
    "update": update,
    "phases": phases,
    "sampling": sampling,
    "mixture": mixture,
}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as a Markdown table."""
    lines = ["| case | figure | value |", "|---|---|---|"]
    for case, figures in results.items():
        for name, value in figures.items():
            parts = value if isinstance(value, dict) else {"": value}
            lines += [f"| {case} | {f'{name} {part}'.strip()} | {number:.4g} |" for part, number in parts.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", default=",".join(GROUPS), help="some of: " + ", ".join(GROUPS))
    asked = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in asked.only.split(","):
        results[name] = GROUPS[name](asked.repetitions)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))  # noqa: T201


if __name__ == "__main__":
    main()
