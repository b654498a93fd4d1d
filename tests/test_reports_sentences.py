"""Every sentence of the verdict, recomputed from random tables by other code: pandas over the tables alone."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_reports_boards import prose

from reports.sections.verdict import verdict
from reports.tables import Sweep

TRAINERS = ("onpo", "inpo", "dpo", "slic")
LEVEL = 0.05
UNIT = {"unit": "share", "scale": [0, 1], "estimates": "", "official": True}
WHO = {
    "sft": "the untrained policy",
    "longest": "the control longest (the longest of several untrained answers), without any training,",
    "constant": "the control constant (one fixed answer), without any training,",
}


class World:
    """Random tables: 1 to 5 seeds, ties, missing values, missing cells, missing comparisons, one or two policies."""

    def __init__(self, number: int) -> None:
        rng = self.rng = np.random.default_rng(number)
        self.seeds = list(range(int(rng.integers(1, 6))))
        self.policies = ["p", "q"][: int(rng.integers(1, 3))]
        self.graders = ["panel", "llm"][: int(rng.integers(1, 3))]
        self.better = str(rng.choice(["higher", "lower"]))
        self.null = [0.5, None][int(rng.integers(2))]
        self.gaps, self.thin = rng.random() < 0.5, rng.random() < 0.3  # missing values; missing comparisons
        trainers, judges = TRAINERS[: int(rng.integers(0, 5))], ("a", "b")[: int(rng.integers(1, 3))]
        self.cells = [
            self._cell(policy, trainer, judge, seed)
            for policy, trainer, judge, seed in itertools.product(self.policies, trainers, judges, self.seeds)
            if rng.random() < (0.9 if self.gaps else 1)
        ]
        controls = [name for name in WHO if name == "sft" or rng.random() < 0.5]
        if self.cells and rng.random() < 0.2:
            controls = controls[1:]
        self.cells += [self._cell(policy, name, "", None) for policy in self.policies for name in controls]
        self.results = [row for grader in self.graders for row in self._results(grader)]
        self.comparisons = [row for grader in self.graders for row in self._comparisons(grader)]
        self.algorithms = [row for grader in self.graders for row in self._means(grader)]
        self.sweep = Sweep(
            name="s",
            results=self.results,
            comparisons=self.comparisons,
            algorithms=self.algorithms,
            metrics={"win_rate": UNIT | {"better": self.better, "null_value": self.null}},
            cells=self.cells,
        )

    def _cell(self, policy: str, trainer: str, judge: str, seed: int | None) -> dict[str, Any]:
        algorithm = "~".join(filter(None, (policy, trainer, judge)))
        cell = algorithm if seed is None else f"{algorithm}~s{seed}"
        named = {"policy": policy, "trainer": trainer, "options": "{}", "judge": judge, "seed": seed}
        return {"cell": cell, "algorithm": algorithm, "state": "done", "reason": "", "stages": [], **named}

    def _results(self, grader: str) -> list[dict[str, Any]]:
        rows = []
        for cell in self.cells:
            value: float | None = round(float(self.rng.uniform(0.4, 0.6)), int(self.rng.integers(1, 4)))  # ties
            if self.gaps and self.rng.random() < 0.1:
                value = None
            ends = (None, None) if value is None else (value - 0.04, value + 0.03)
            row = {key: cell[key] for key in ("cell", "policy", "trainer", "options", "judge", "seed")}
            row |= {"sweep": "s", "grader": grader, "iteration": 1, "category": "", "leaderboard": "board"}
            row |= {"metric": "win_rate", "value": value, "ci_low": ends[0], "ci_high": ends[1], "ci_level": 0.95}
            rows.append(row | {"n": 100, "coverage": 1, "samples": 1, "queries": 1, "steps": 1})
        return rows

    def _comparisons(self, grader: str) -> list[dict[str, Any]]:
        """Of every two names, cells or algorithms, of any base; some are left out, some have no difference."""
        names = {cell["cell"]: "checkpoint" for cell in self.cells}
        names |= {cell["algorithm"]: "algorithm" for cell in self.cells if cell["seed"] is not None}
        rows = []
        for pair in itertools.combinations(names, 2):
            a, b = pair if self.rng.random() < 0.5 else pair[::-1]
            claim = "algorithm" if "algorithm" in (names[a], names[b]) else "checkpoint"
            if self.thin and self.rng.random() < 0.3:
                continue
            difference: float | None = round(float(self.rng.normal(0, 0.1)), 2)
            p = float(self.rng.choice([0.0001, 0.03, 0.2, 1.0]))
            if self.thin and self.rng.random() < 0.1:
                difference = None
            row = {"leaderboard": "board", "metric": "win_rate", "grader": grader, "a": a, "b": b, "n": 90}
            row |= {"difference": difference, "claim": claim, "p_value": None, "p_adjusted": None}
            row |= dict.fromkeys(("ci_low", "ci_high", "detectable", "prompts_needed", "seeds_needed"))
            if difference is not None:
                row |= {"p_value": p / 3, "p_adjusted": p, "ci_low": difference - 0.1, "ci_high": difference + 0.2}
                row |= {"detectable": 0.31, "prompts_needed": float(self.rng.choice([812, math.inf]))}
                row |= {"seeds_needed": 17.0 if claim == "algorithm" and self.rng.random() < 0.5 else None}
            rows.append(row)
        return rows

    def _means(self, grader: str) -> list[dict[str, Any]]:
        frame = pd.DataFrame([row for row in self.results if row["grader"] == grader and row["seed"] is not None])
        rows = []
        for (policy, trainer, judge), of in frame.groupby(["policy", "trainer", "judge"]) if len(frame) else []:
            if of["value"].isna().any() or len(of) < 2 or self.rng.random() < 0.3:
                continue
            value = float(of["value"].mean())
            row = {"leaderboard": "board", "metric": "win_rate", "grader": grader, "ci_level": 0.95, "n": 80}
            row |= {"algorithm": f"{policy}~{trainer}~{judge}", "seeds": ", ".join(map(str, of["seed"].astype(int)))}
            rows.append(row | {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "collapsed": ""})
        return rows


class Recomputed:
    """What the verdict must say of one base and grader; `policy` None: of the untrained policies of a sweep that trains
    none.
    """

    def __init__(self, world: World, policy: str | None, grader: str) -> None:
        self.policy, self.sign = policy, 1 if world.better == "higher" else -1
        self.null, frame = world.null, pd.DataFrame(world.results)
        frame = frame[frame["grader"] == grader]
        frame = frame[frame["trainer"] == "sft"] if policy is None else frame[frame["policy"] == policy]
        frame = frame[frame["value"].notna()]
        trained = frame if policy is None else frame[frame["judge"] != ""]
        self.several_policies = len(world.policies) > 1
        self.several_seeds = len({c["seed"] for c in world.cells if c["seed"] is not None}) > 1
        self.compared = pd.DataFrame([row for row in world.comparisons if row["grader"] == grader])
        self.means = {row["algorithm"]: row for row in world.algorithms if row["grader"] == grader}
        of_arm = dict(list(trained.groupby(["policy", "trainer", "judge"], sort=False)))
        seeds = [tuple(sorted(of["seed"].dropna().astype(int))) for of in of_arm.values()]
        self.seeds = self._common([of for of in seeds if of])
        self.arms, self.lacking = [], {}
        for key, of in of_arm.items():
            missing = sorted(set(self.seeds) - set(of["seed"].dropna().astype(int)))
            if missing:
                self.lacking[" · ".join(filter(None, (self._short(key), key[2])))] = missing
                continue
            self.arms.append(self._arm(key, of if not self.seeds else of[of["seed"].isin(self.seeds)]))
        self.arms.sort(key=lambda arm: -self.sign * arm["value"])  # stable
        controls = frame[frame["judge"] == ""] if policy is not None else frame[:0]
        self.controls = {
            row["trainer"]: self._arm((row["policy"], row["trainer"], ""), pd.DataFrame([row]))
            for _, row in controls.iterrows()
        }

    def _common(self, seeds: list[tuple[int, ...]]) -> tuple[int, ...]:
        """Those that most arms have; then those that more arms have at least; then more of them."""
        best, best_score = (), None
        for candidate in sorted(set(seeds)):
            equal = sum(other == candidate for other in seeds)
            at_least = sum(set(candidate).issubset(other) for other in seeds)
            score = (equal, at_least, len(candidate), list(candidate))
            if best_score is None or score > best_score:
                best, best_score = candidate, score
        return best

    def _short(self, key: tuple[str, str, str]) -> str:
        return f"{key[1]} · {key[0]}" if self.several_policies else key[1]

    def _arm(self, key: tuple[str, str, str], of: pd.DataFrame) -> dict[str, Any]:
        label = " · ".join(filter(None, (self._short(key), key[2])))
        head = key[1] + (f" trained by {key[2]}" if key[2] else "")
        low, high, values = None, None, of["value"].tolist()
        name = "~".join(filter(None, key))
        n = int(of["n"].iloc[0])
        if len(of) == 1:
            seed = of["seed"].iloc[0]
            low, high = of["ci_low"].iloc[0], of["ci_high"].iloc[0]
            if not pd.isna(seed) and seed is not None:
                name += f"~s{int(seed)}"
                label += f" · seed {int(seed)}" if self.several_seeds else ""
        value = sum(values) / len(values)
        mean = self.means.get(name)
        if len(of) > 1 and mean and mean["seeds"] == ", ".join(map(str, self.seeds)):
            value, low, high, n = mean["value"], mean["ci_low"], mean["ci_high"], mean["n"]
        return {
            "judge": key[2],
            "name": name,
            "label": label,
            "head": head,
            "value": value,
            "low": low,
            "high": high,
            "of": values,
            "n": n,
        }

    def pair(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
        """The comparison, a first."""
        if self.compared.empty:
            return None
        table = self.compared[self.compared["difference"].notna()]
        for one, other, turn in ((a, b, 1), (b, a, -1)):
            found = table[(table["a"] == one["name"]) & (table["b"] == other["name"])]
            if len(found):
                row = found.iloc[0].to_dict()
                ends = sorted((turn * row["ci_low"], turn * row["ci_high"]))
                return row | {"difference": turn * row["difference"], "ci_low": ends[0], "ci_high": ends[1]}
        return None

    def standing(self, a: dict[str, Any], b: dict[str, Any]) -> int | None:
        row = self.pair(a, b)
        return None if row is None else int(row["p_adjusted"] < LEVEL) * self.sign * int(np.sign(row["difference"]))

    def to_start(self, arm: dict[str, Any]) -> int | None:
        if "sft" in self.controls:
            return self.standing(arm, self.controls["sft"])
        if self.null is None or arm["low"] is None:
            return None
        return self.sign * (int(arm["low"] > self.null) - int(arm["high"] < self.null))

    @property
    def kind(self) -> str:
        return "algorithm" if len(self.seeds) > 1 else "policy"

    @property
    def kinds(self) -> str:
        return "algorithms" if len(self.seeds) > 1 else "policies"

    def sentences(self) -> list[str]:
        best = self.arms[0]
        found = [self._first(best), self._margin(best), *self._others(best), *self._near(best), self._tally()]
        if self.lacking:
            names = [f"{label} (seed {listed([str(seed) for seed in seeds])})" for label, seeds in self.lacking.items()]
            found.append(f"Not ranked, since seeds of the others are missing: {listed(names, 6)}.")
        return [sentence for sentence in found if sentence]

    def _first(self, best: dict[str, Any]) -> str:
        standings = [self.to_start(arm) for arm in self.arms]
        start = ""
        if None not in standings and 1 not in standings:
            worse = standings.count(-1)
            if "sft" in self.controls:
                start = f"No trained {self.kind} is separable from the untrained one: "
                if worse:
                    rest = f"{worse} {'is' if worse == 1 else 'are'} worse"
                    start = f"No trained {self.kind} beats the untrained one, and {rest}: "
            else:
                start = f"No trained {self.kind}’s interval lies {'above' if self.sign > 0 else 'below'} 0.500: "
        high = [text for name in WHO if (text := self._as_high(best, name))]
        text = f"{start}{best['head'] if self.policy is not None else best['label']}"
        most, among = "highest" if self.sign > 0 else "lowest", " of the trained" if high else ""
        text += f" has the {most} win rate{among}, {best['value']:.3f}"
        notes = []
        if best["low"] is not None:
            notes.append(f"95% interval {best['low']:.3f} to {best['high']:.3f}, n = {best['n']}")
        if len(best["of"]) > 1:
            text += f" in the mean of {len(best['of'])} seeds"
            notes.append(f"seeds from {min(best['of']):.3f} to {max(best['of']):.3f}")
        text += f" ({'; '.join(notes)})" if notes else ""
        same = [arm["label"] for arm in self.arms[1:] if arm["value"] == best["value"]]
        text += f"; {listed(same)} {'has' if len(same) == 1 else 'have'} the same" if same else ""
        return text + "".join(high) + "."

    def _as_high(self, best: dict[str, Any], name: str) -> str:
        control = self.controls.get(name)
        if control is None or self.sign * control["value"] < self.sign * best["value"]:
            return ""
        what = "the same" if control["value"] == best["value"] else f"a {'higher' if self.sign > 0 else 'lower'} one"
        return f"; {WHO[name]} has {what}, {control['value']:.3f}{self._beside(best, name)}"

    def _beside(self, best: dict[str, Any], name: str) -> str:
        standing = None if name == "sft" else self.standing(best, self.controls[name])
        return {0: ", not separable from the best trained one", -1: ", and beats the best trained one"}.get(
            standing, ""
        )

    def _near(self, best: dict[str, Any]) -> list[str]:
        below = [name for name in WHO if name in self.controls and not self._as_high(best, name)]
        return [
            f"{WHO[name][0].upper()}{WHO[name][1:]} has {self.controls[name]['value']:.3f}{words}."
            for name in below
            if (words := self._beside(best, name))
        ]

    def _margin(self, best: dict[str, Any]) -> str:
        start = self.controls.get("sft")
        if start is None:
            standing = self.to_start(best)
            if standing is None:
                return ""
            lies = {1: "on the better side of", 0: "across", -1: "on the worse side of"}[standing]
            return f"Its interval lies {lies} 0.500, where neither side is ahead."
        row = self.pair(best, start)
        if row is None:
            return f"It is not compared with the untrained policy, which has {start['value']:.3f}."
        verb = {1: "beats", 0: "is not separable from", -1: "is worse than"}
        settle = f"; {self.settle(row)}" if self.standing(best, start) == 0 else ""
        return f"It {verb[self.standing(best, start)]} the untrained policy: difference {self.difference(row)}{settle}."

    def difference(self, row: dict[str, Any]) -> str:
        family = self.compared[(self.compared["claim"] == row["claim"]) & self.compared["p_value"].notna()]
        p = "<\u202f0.001" if row["p_adjusted"] < 0.001 else f"= {row['p_adjusted']:.3f}"
        tests = f"{len(family)} test" + ("s" if len(family) != 1 else "")
        note = f"interval {signed(row['ci_low'])} to {signed(row['ci_high'])}, adjusted p {p} in {tests}"
        return f"{signed(row['difference'])} ({note})"

    def settle(self, row: dict[str, Any]) -> str:
        needed = {kind: row[f"{kind}_needed"] for kind in ("prompts", "seeds") if not pd.isna(row[f"{kind}_needed"])}
        ways = [f"{number:.0f} {kind}" for kind, number in needed.items() if number < math.inf]
        text = f"a difference of {row['detectable']:.3f} would have shown (power 80%)"
        if ways:
            return f"{text}, and this one would take about {' or '.join(ways)}"
        return f"{text}, and no number of prompts or seeds alone would show this one"

    def _others(self, best: dict[str, Any]) -> list[str]:
        standings = {arm["label"]: self.standing(best, arm) for arm in self.arms[1:]}
        tested = {label: standing for label, standing in standings.items() if standing is not None}
        untested = [label for label in standings if label not in tested]
        close = [label for label, standing in tested.items() if standing != 1]
        kind = self.kind if len(tested) == 1 else self.kinds
        others = f"the {len(tested)} other {kind}{' that it is compared with' if untested else ''}"
        found = []
        if tested and not close:
            found.append(f"It is separable from {next(iter(tested)) if len(tested) == 1 else f'all of {others}'}.")
        if close:
            none = len(close) == len(tested) > 1
            text = (
                f"It is separable from none of {others}."
                if none
                else f"Not separable from this best one: {listed(close)}."
            )
            found.append(text)
        if untested:
            found.append(f"Not compared with it prompt by prompt: {listed(untested)}.")
        return found

    def _tally(self) -> str:
        standings = {arm["label"]: self.to_start(arm) for arm in self.arms}
        if len(standings) < 2 or None in standings.values() or set(standings.values()) == {0}:
            return ""
        above, below = ([label for label, of in standings.items() if of == side] for side in (1, -1))
        if not above:
            return f"Worse than the untrained policy: {listed(below, 6)}."
        every = len(above) == len(standings)
        who = f"{'all' if every else f'{len(above)} of the'} {len(standings)} trained {self.kinds}"
        if "sft" in self.controls:
            text, worse = f"{who.capitalize()} beat{'s' if len(above) == 1 else ''} the untrained one", "Worse than it"
        else:
            sides = ("above", "Below it") if self.sign > 0 else ("below", "Above it")
            text, worse = f"The intervals of {who} lie {sides[0]} the null value", sides[1]
        text += " in win rate" + ("." if every else f": {listed(above, 6)}.")
        return text + (f" {worse}: {listed(below, 6)}." if below else "")

    def algorithms(self, place: str) -> list[str]:
        """Claims over seeds, largest first; then what is not separable; then the advice on seeds."""
        if self.compared.empty:
            return []
        rows = self.compared[(self.compared["claim"] == "algorithm") & self.compared["difference"].notna()]
        rows = [row.to_dict() for _, row in rows.iterrows()]
        sure = [row for row in rows if row["p_adjusted"] < LEVEL and row["difference"] != 0]
        found = []
        for row in sorted(sure, key=lambda row: -abs(row["difference"]))[:6]:
            verb = "beats" if self.sign * row["difference"] > 0 else "loses to"
            names = f"{self._called(row['a'])} {verb} {self._called(row['b'])}"
            found.append(f"{names} by a difference of {self.difference(row)} on {place}.")
        unsure = [row for row in rows if row["p_adjusted"] >= LEVEL or row["difference"] == 0]
        for row in unsure[:6]:
            pair = f"{self._called(row['a'])} and {self._called(row['b'])}"
            found.append(f"Not separable on {place}: {pair}; {self.settle(row)}.")
        if len(unsure) > 6:
            found.append(f"{len(unsure) - 6} more pairs are not separable on {place}.")
        if rows and len(self.seeds) < 3:
            widest = max(rows, key=lambda row: row["ci_high"] - row["ci_low"])
            seeds = f"{len(self.seeds)} seed" + ("s" if len(self.seeds) != 1 else "")
            found.append(
                f"Train 3 to 5 seeds: with the {seeds} at hand the widest interval of a difference goes from "
                f"{signed(widest['ci_low'])} to {signed(widest['ci_high'])}; intervals over two seeds are about seven "
                "to nine times as wide as over ten."
            )
        return found

    def _called(self, name: str) -> str:
        policy, trainer, *rest = name.split("~")
        seed = [f"seed {part[1:]}" for part in rest if re.fullmatch(r"s\d", part)] if self.several_seeds else []
        judge = [part for part in rest if not re.fullmatch(r"s\d", part)]
        return " · ".join([self._short((policy, trainer, "")), *judge, *seed])


def listed(names: list[str], most: int = 4) -> str:
    if len(names) > most:
        return ", ".join(names[:most]) + f" and {len(names) - most} more"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def signed(value: float) -> str:
    text = f"{abs(value):.3f}"
    return text if float(text) == 0 else ("+" if value > 0 else "\u2212") + text


def check(number: int) -> int:
    """Compares the verdict of one random world with the recomputation; how many sentences there were."""
    world = World(number)
    told = verdict([world.sweep])
    told_of = {finding["where"]: [prose([s]) for s in finding["sentences"]] for finding in told["findings"]}
    expected, claims = {}, []
    trains = any(cell["judge"] for cell in world.cells)
    for policy, grader in itertools.product(world.policies if trains else [None], world.graders):
        group = Recomputed(world, policy, grader)
        where = f"board, graded by {grader}" + (f", {policy}" if policy and len(world.policies) > 1 else "")
        tested = any(group.pair(a, b) for a, b in itertools.combinations(group.arms, 2))
        if group.arms and (trains or tested):
            expected[where] = group.sentences()
            claims += group.algorithms(where) if trains else []
            _check_summary(told["summary"], group, grader)
    assert told_of == expected
    assert sorted(prose([sentence]) for sentence in told["algorithms"]) == sorted(claims)
    families = {(row["grader"], row["claim"]) for row in world.comparisons if row["p_value"] is not None}
    with_finding = {where.split("graded by ")[1].split(",")[0] for where in expected}
    assert told["families"] == len([family for family in families if family[0] in with_finding])
    return sum(map(len, expected.values())) + len(claims)


def _check_summary(tables: list[dict[str, Any]], group: Recomputed, grader: str) -> None:
    """The leader of each judge, and its difference to the untrained policy."""
    for table in (table for table in tables if table["policy"] == group.policy):
        (column,) = [i for i, column in enumerate(table["columns"]) if column["grader"] == grader]
        for row in table["rows"]:
            arms, square = [arm for arm in group.arms if arm["judge"] == row["judge"]], row["cells"][column]
            assert (square is None) == (not arms)
            if arms:
                pair = group.pair(arms[0], group.controls["sft"]) if "sft" in group.controls else None
                assert square["leader"] == arms[0]["head"].split(" trained by ")[0]
                assert [figure.value for figure in square["differences"]] == ([pair["difference"]] if pair else [])
                assert square["sure"] == bool(pair and group.standing(arms[0], group.controls["sft"]))


@pytest.mark.parametrize("block", range(6))
def test_every_sentence_of_the_verdict_agrees_with_a_recomputation_from_random_tables(block: int) -> None:
    assert sum(check(number) for number in range(10 * block, 10 * block + 10)) > 20


@pytest.mark.slow
def test_every_sentence_agrees_on_500_random_tables() -> None:
    assert sum(check(number) for number in range(1000, 1500)) > 2000
