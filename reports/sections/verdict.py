"""The verdict: sentences made from the statistics, and the caveats that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.boards import Arm, Group, alpha, boards, comparisons, groups, significant, untrained_groups
from reports.numbers import MetricDisplay
from reports.sections.caveats import CONTROLS as UNTRAINED
from reports.sections.caveats import caveats
from reports.sections.common import (
    Prose,
    Strong,
    counted,
    figure,
    interval,
    kinds,
    listed,
    p_note,
    settling,
    side,
    spread,
    where,
)
from reports.sections.summary import summary
from reports.sections.training import alarms
from reports.standings import (
    against_start,
    better,
    better_sign,
    start_is_null,
    tested_to_start,
    tests_of,
    versus,
)
from reports.tables import Row, Sweep, is_control, unique

CONTROLS = {"sft": "the untrained policy"} | {
    name: f"the control {name} ({what}), without any training," for name, what in UNTRAINED.items()
}
MOST_PAIRS = 6
ENOUGH_SEEDS = 3
MOST_TASKS = 4  # of a board that scores its tasks alone


def verdict(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """The findings, board by board, an independent grader before one that trained; their summary, the caveats, how many
    families of tests these rest on, and whether anything is trained at all.
    """
    views = [view for board in boards(sweeps) for view in (board.views[:MOST_TASKS] if board.is_of_tasks else [board])]
    scored = [group for view in views if view.lead.sign for group in groups(sweeps, view)]
    with_findings = [group for group in scored if any(row["value"] is not None for row in group.trained)]
    untrained = [group for view in views if view.lead.sign for group in untrained_groups(sweeps, view)]
    untrained = [group for group in untrained if len(group.arms) > 1 and _are_compared(group)]
    order = unique(group.board.name for group in with_findings)
    with_findings.sort(
        key=lambda group: (order.index(group.board.name), any(row["judge"] == group.grader for row in group.trained))
    )
    several = len(sweeps) > 1
    cells = [row for sweep in sweeps for row in sweep.info.values()]
    return {
        "findings": [
            {"where": where(group, several), "sentences": finding(group), "tags": _tags(group)}
            for group in [*with_findings, *untrained]
        ],
        "algorithms": [prose for group in with_findings for prose in algorithms(group, several)],
        "summary": summary(with_findings),
        "families": families([*with_findings, *untrained]),
        "caveats": caveats(sweeps, with_findings, with_findings or scored),
        "trains": any(not is_control(row) for row in cells) or not cells,
    }


def _are_compared(group: Group) -> bool:
    """Whether untrained policies are compared with each other: not where each has a baseline of its own."""
    return any(versus(group, a.name, b.name) for a in group.arms for b in group.arms if a is not b)


def families(with_findings: Sequence[Group]) -> int:
    """How many families of tests (board, metric, grader, claim) stand behind findings."""
    keys = {
        (group.sweep.name, group.board.name, group.board.lead.name, group.grader, claim)
        for group in with_findings
        for claim in ("checkpoint", "algorithm")
        if any(row["p_value"] is not None for row in comparisons(group, claim))
    }
    return len(keys)


def _tags(group: Group) -> dict[str, str]:
    return {"sweep": group.sweep.name, "leaderboard": group.board.name, "grader": group.grader}


def finding(group: Group) -> list[Prose]:
    """What one board says under one grader: the best, its standing to the untrained policy, and who else beats that.

    The first sentence begins with it where no trained policy beats the untrained one, and ends with what scores as
    high without training.
    """
    best = group.arms[0]
    high, near = _untrained(group, best)
    among = " of the trained" if high else ""
    sentences: list[Prose] = [[*_none_better(group), *_best(group, best, among), *_shared(group, best), *high, "."]]
    sentences += [_triggered_alarms(group, best), _margin(group, best), *_separable(group, best)]
    return [sentence for sentence in [*sentences, *near, _tally(group), _incomplete(group)] if sentence]


def _none_better(group: Group) -> Prose:
    """The start of the first sentence where no trained policy is separably better than the untrained one."""
    standings = [against_start(group, arm) for arm in group.arms]
    if None in standings or 1 in standings:
        return []
    who, worse = kinds(group, 1), standings.count(-1)
    if all(tested_to_start(group, arm) for arm in group.arms) or not start_is_null(group):
        verb = "beats" if worse else "is separable from"
        rest = f", and {worse} {'is' if worse == 1 else 'are'} worse" if worse else ""
        return [f"No trained {who} {verb} the untrained one{rest}: "]
    return [
        f"No trained {who}’s interval lies {side(group, 1)} ",
        figure(group.board.lead.null, group.board.lead),
        ": ",
    ]


def _untrained(group: Group, best: Arm) -> tuple[Prose, list[Prose]]:
    """What untrained has the best one's value or a better one, as clauses; what is not beaten by it, as sentences."""
    lead, high, near = group.board.lead, [], []
    for name, who in CONTROLS.items():
        control = group.control(name)
        if control is None:
            continue
        ahead = (lead.sign or 1) * ((control.value > best.value) - (control.value < best.value))
        words = {0: ", not separable from the best trained one", -1: ", and beats the best trained one"}
        standing = None if name == "sft" or group.is_exact else better(group, best, control)
        shared = words.get(standing, "") if standing is not None else ""
        value = figure(control.value, lead)
        if ahead >= 0:
            has = f"a {'lower' if lead.sign < 0 else 'higher'} one" if ahead else "the same"
            high += [f"; {who} has {has}, ", value, shared]
        elif shared:
            near.append([f"{who[:1].upper()}{who[1:]} has ", value, f"{shared}."])
    return high, near


def _name(group: Group, arm: Arm) -> Prose:
    info = group.sweep.info[arm.rows[0]["cell"]]
    if not group.policy:
        return [Strong(arm.label)]
    return [Strong(info["arm"]), *([" trained by ", Strong(arm.judge)] if arm.judge else [])]


def _triggered_alarms(group: Group, arm: Arm) -> Prose:
    """The alarms that rang while the best one was trained."""
    cells = {row["cell"] for row in arm.rows}
    triggered = unique(entry["name"] for entry in alarms([group.sweep])["triggered"] if entry["row"]["cell"] in cells)
    return [f"An alarm rang in its training: {listed(triggered)}."] if triggered else []


def _best(group: Group, arm: Arm, among: str) -> Prose:
    lead, word = group.board.lead, "lowest" if group.board.lead.sign < 0 else "highest"
    sentence = [*_name(group, arm), f" has the {word} {lead.label}{among}, ", figure(arm.value, lead)]
    notes: Prose = []
    if arm.has_interval:
        bounds = interval({"ci_low": arm.ci_low, "ci_high": arm.ci_high}, lead)
        notes += [f"; {_percent(1 - alpha(group.rows))}interval ", *bounds]
        notes += [", n = ", figure(arm.n)] if arm.n else []
    if len(arm.rows) > 1:
        sentence += [f" in the mean of {counted(len(arm.rows), 'seed')}"]
        ends = spread([row["value"] for row in arm.rows], lead)
        notes += ["; seeds from ", ends[0], " to ", ends[-1]]
    if notes:
        notes[0] = notes[0].removeprefix("; ")
        sentence += [" (", *notes, ")"]
    return sentence


def _shared(group: Group, best: Arm) -> Prose:
    """Who else has the best one's value."""
    others = [arm.label for arm in group.arms if arm.value == best.value and arm is not best]
    return [f"; {listed(others)} {'has' if len(others) == 1 else 'have'} the same"] if others else []


def _percent(level: float | None) -> str:
    return "" if level is None else f"{100 * level:g}% "


def _margin(group: Group, arm: Arm) -> Prose:
    """How the best stands to the untrained policy, by how much, and what would settle it where nothing does."""
    lead, start = group.board.lead, group.control("sft")
    paired = versus(group, arm.name, start.name) if start else None
    if paired is not None:
        sure = significant(paired, alpha(group.rows))
        verb = "It is not separable from"
        if sure:
            verb = "It beats" if better_sign(group, paired) > 0 else "It is worse than"
        settle = [] if sure else settling(paired, lead)
        tail: Prose = [*_difference(group, paired), *(["; ", *settle] if settle else []), "."]
        return [f"{verb} the untrained policy: difference ", *tail]
    standing = against_start(group, arm)
    if standing is None and start is not None:
        return ["It is not compared with the untrained policy, which has ", figure(start.value, lead), "."]
    if standing is None or group.is_exact:
        return []
    lies = {1: "on the better side of", 0: "across", -1: "on the worse side of"}[standing]
    return [f"Its interval lies {lies} ", figure(lead.null, lead), ", where neither side is ahead."]


def _difference(group: Group, paired: Row) -> Prose:
    """A difference with its interval and p-value, adjusted where the table has that."""
    lead = group.board.lead
    bounds = interval(paired, lead, signed=True)
    notes = [*(["interval ", *bounds] if bounds else []), *p_note(paired, tests_of(group, paired))]
    return [figure(paired["difference"], lead, signed=True), *([" (", *notes, ")"] if notes else [])]


def _separable(group: Group, best: Arm) -> list[Prose]:
    """Which other arms the best one is separable from, and which it is not compared with."""
    if group.is_exact:
        return []
    standings = {arm.label: better(group, best, arm) for arm in group.arms if arm is not best}
    tested = [label for label, standing in standings.items() if standing is not None]
    close = [label for label in tested if standings[label] != 1]
    untested = [label for label in standings if label not in tested]
    others = f"the {len(tested)} other {kinds(group, len(tested))}{' that it is compared with' if untested else ''}"
    sentences: list[Prose] = []
    if tested and not close:
        who = tested[0] if len(tested) == 1 else f"all of {others}"
        sentences.append([f"It is separable from {who}."])
    elif len(close) == len(tested) > 1:
        sentences.append([f"It is separable from none of {others}."])
    elif close:
        sentences.append([f"Not separable from this best one: {listed(close)}."])
    if untested:
        sentences.append([f"Not compared with it prompt by prompt: {listed(untested)}."])
    return sentences


def _tally(group: Group) -> Prose:
    """How many arms are above and below the untrained policy."""
    standings = {arm.label: against_start(group, arm) for arm in group.arms}
    if len(standings) < 2 or None in standings.values() or not any(standings.values()):
        return []
    above = [label for label, standing in standings.items() if standing == 1]
    below = [label for label, standing in standings.items() if standing == -1]
    if not above:  # which the first sentence has said
        return [f"Worse than the untrained policy: {listed(below, 6)}."]
    share = "all" if len(above) == len(standings) else f"{len(above)} of the"
    who, lead = f"{share} {len(standings)} trained {kinds(group, 2)}", group.board.lead
    if all(tested_to_start(group, arm) for arm in group.arms) or not start_is_null(group):
        sentence, worse = f"{who.capitalize()} beat{'s' if len(above) == 1 else ''} the untrained one", "Worse than it"
    else:
        sentence, worse = f"The intervals of {who} lie {side(group, 1)} the null value", f"{side(group, -1).title()} it"
    sentence += f" in {lead.label}" + (f": {listed(above, 6)}." if len(above) < len(standings) else ".")
    return [sentence + (f" {worse}: {listed(below, 6)}." if below else "")]


def _incomplete(group: Group) -> Prose:
    """The arms that lack seeds of the others."""
    lacks = [
        f"{arm.label.partition(' · seed ')[0]} (seed {listed(list(map(str, arm.lacking)))})" for arm in group.incomplete
    ]
    return [f"Not ranked, since seeds of the others are missing: {listed(lacks, 6)}."] if lacks else []


def algorithms(group: Group, several: bool) -> list[Prose]:
    """What the comparisons over seeds claim about algorithms, the separable pairs first, then those that are not."""
    lead, rows, display_name = group.board.lead, comparisons(group, "algorithm"), group.sweep.display_name
    rows = [row for row in rows if row["difference"] is not None]
    sure = [row for row in rows if significant(row, alpha(group.rows))]
    sentences: list[Prose] = []
    for row in sorted(sure, key=lambda row: -abs(row["difference"]))[:MOST_PAIRS]:
        verb = "beats" if better_sign(group, row) > 0 else "loses to"
        names: Prose = [Strong(display_name(row["a"])), f" {verb} ", Strong(display_name(row["b"]))]
        difference = [" by a difference of ", *_difference(group, row)]
        sentences.append([*names, *difference, f" on {where(group, several)}."])
    unsure = [row for row in rows if row not in sure]
    for row in unsure[:MOST_PAIRS]:
        pair = " and ".join(display_name(row[side]) for side in "ab")
        settle = settling(row, lead)
        sentences.append(
            [f"Not separable on {where(group, several)}: {pair}", *(["; ", *settle] if settle else []), "."]
        )
    if len(unsure) > MOST_PAIRS:
        sentences.append([f"{len(unsure) - MOST_PAIRS} more pairs are not separable on {where(group, several)}."])
    return [*sentences, *_widths(rows, lead, len(group.seeds))]


def _widths(rows: Sequence[Row], lead: MetricDisplay, seeds: int) -> list[Prose]:
    """How wide intervals over the seeds at hand are, where there are fewer than is recommended."""
    with_interval = [row for row in rows if None not in (row["ci_low"], row["ci_high"])]
    if not with_interval or seeds >= ENOUGH_SEEDS:
        return []
    widest = max(with_interval, key=lambda row: row["ci_high"] - row["ci_low"])
    text = (
        f"Train 3 to 5 seeds: with the {counted(seeds, 'seed')} at hand the widest interval of a difference goes from "
    )
    tail = "; intervals over two seeds are about seven to nine times as wide as over ten."
    return [[text, *interval(widest, lead, signed=True), tail]]
