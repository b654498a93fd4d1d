"""The verdict: sentences made from the statistics, and the caveats that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.boards import (
    Group,
    against_start,
    alpha,
    arms,
    better,
    boards,
    by_prompt,
    comparisons,
    groups,
    significant,
    standings,
    start_is_null,
    tested,
    tested_to_start,
    versus,
)
from reports.numbers import MetricDisplay
from reports.sections.caveats import CONTROLS as UNTRAINED
from reports.sections.caveats import caveats
from reports.sections.common import Prose, Strong, counted, figure, interval, listed, p_note, side, where
from reports.sections.summary import summary
from reports.sections.training import alarms
from reports.tables import Row, Sweep, is_control, unique

CONTROLS = {"sft": "the untrained policy"} | {
    name: f"the control {name} ({what}), without any training," for name, what in UNTRAINED.items()
}
SAME = "is separable from"
MOST_PAIRS = 6
MOST_TASKS = 4  # of a board that scores its tasks alone


def verdict(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """The findings, board by board, an independent grader before one that trained; their summary, the caveats, and
    whether anything is trained at all.
    """
    views = [view for board in boards(sweeps) for view in (board.views[:MOST_TASKS] if board.is_of_tasks else [board])]
    scored = [group for view in views if view.lead.sign for group in groups(sweeps, view)]
    with_findings = [group for group in scored if any(row["value"] is not None for row in group.trained)]
    order = unique(group.board.name for group in with_findings)
    with_findings.sort(
        key=lambda group: (order.index(group.board.name), any(row["judge"] == group.grader for row in group.trained))
    )
    several = len(sweeps) > 1
    cells = [row for sweep in sweeps for row in sweep.info.values()]
    return {
        "findings": [
            {"where": where(group, several), "sentences": finding(group), "tags": _tags(group)}
            for group in with_findings
        ],
        "algorithms": [prose for group in with_findings for prose in algorithms(group, several)],
        "summary": summary(with_findings),
        "caveats": caveats(sweeps, with_findings, with_findings or scored),
        "trains": any(not is_control(row) for row in cells) or not cells,
    }


def _tags(group: Group) -> dict[str, str]:
    return {"sweep": group.sweep.name, "leaderboard": group.board.name, "grader": group.grader}


def finding(group: Group) -> list[Prose]:
    """What one board says under one grader: the best, its standing to the untrained policy, and who else beats that.

    The first sentence begins with it where no trained policy beats the untrained one, and ends with what scores as
    high without training.
    """
    ordered = arms(group)
    best = ordered[0]
    high, near = _untrained(group, best)
    among = " of the trained" if high else ""
    sentences = [[*_none_better(group), *_best(group, best, among), *_shared(group, best), *high, "."]]
    if len(best) == 1:
        sentences.append(_triggered_alarms(group, best[0]))
        sentences += [_margin(group, best[0]), _by_prompt(group, best[0]), _separable(group, best[0])]
    return [sentence for sentence in [*sentences, *near, _tally(group)] if sentence]


def _none_better(group: Group) -> Prose:
    """The start of the first sentence where no trained policy is separably better than the untrained one."""
    of, standing_of = standings(group)
    if None in standing_of.values() or 1 in standing_of.values():
        return []
    start, lead, named = of.control("sft"), of.board.lead, "" if of is group else f" in {of.board.lead.label}"
    if all(tested_to_start(of, row) for row in of.trained if row["cell"] in standing_of):
        worse = sum(standing == -1 for standing in standing_of.values())
        verb, rest = ("beats", f", and {worse} {'is' if worse == 1 else 'are'} worse") if worse else (SAME, "")
        return [f"No trained policy {verb} the untrained one{named}{rest}: "]
    text = f"No trained policy’s interval lies {side(of, 1)} "
    if start is None or start_is_null(of):
        return [text, figure(lead.null, lead), ": "]
    return [text + "that of the untrained one: "]


def _untrained(group: Group, best: Sequence[Row]) -> tuple[Prose, list[Prose]]:
    """What untrained has the best one's value or a better one, as clauses; what shares its ranks, as sentences."""
    lead, high, near = group.board.lead, [], []
    middle = sorted((row["value"] for row in best), key=lambda value: -value * (lead.sign or 1))[len(best) // 2]
    for name, who in CONTROLS.items():
        row = group.control(name)
        if row is None or row["value"] is None:
            continue
        ahead = (lead.sign or 1) * ((row["value"] > middle) - (row["value"] < middle))
        shared = _rank_shared(group, best, row) if name != "sft" else ""
        value = figure(row["value"], lead)
        if ahead >= 0:
            has = f"a {'lower' if lead.sign < 0 else 'higher'} one" if ahead else "the same"
            high += [f"; {who} has {has}, ", value, shared]
        elif shared:
            near.append([f"{who[:1].upper()}{who[1:]} has ", value, f"{shared}."])
    return high, near


def _rank_shared(group: Group, best: Sequence[Row], control: Row) -> str:
    """How a control that may hold a rank of the best arm stands to it; '' where it may not or nothing tells."""
    for row in best:
        standing = better(group, row, control)
        if tested(group, row["cell"], control["cell"]):
            words = {0: ", not separable from the best trained one", -1: ", and beats the best trained one"}
        elif None in (row["ci_low"], control["ci_low"]):
            continue
        else:
            lies = f", with an interval {side(group, 1)} the best trained one’s"
            words = {0: ", with an interval that overlaps the best trained one’s", -1: lies}
        if standing in words:
            return words[standing]
    return ""


def _name(group: Group, rows: Sequence[Row]) -> Prose:
    arm, judge = group.sweep.info[rows[0]["cell"]]["arm"], rows[0]["judge"]
    return [Strong(arm), *([" trained by ", Strong(judge)] if judge else [])]


def _triggered_alarms(group: Group, row: Row) -> Prose:
    """The alarms that rang while the best one was trained."""
    triggered = unique(
        entry["name"] for entry in alarms([group.sweep])["triggered"] if entry["row"]["cell"] == row["cell"]
    )
    return [f"An alarm rang in its training: {listed(triggered)}."] if triggered else []


def _best(group: Group, rows: Sequence[Row], among: str) -> Prose:
    lead, word = group.board.lead, "lowest" if group.board.lead.sign < 0 else "highest"
    if len(rows) > 1:
        values = sorted(row["value"] for row in rows)
        over = [
            " over ",
            counted(len(rows), "seed"),
            ": ",
            figure(values[0], lead),
            " to ",
            figure(values[-1], lead),
        ]
        return [*_name(group, rows), f" has the {word} {lead.label}{among} at the median", *over]
    row, level = rows[0], rows[0]["ci_level"]
    bounds = interval(row, lead)
    sentence = [*_name(group, rows), f" has the {word} {lead.label}{among}, ", figure(row["value"], lead)]
    if bounds:
        sentence += (
            [f" ({_percent(level)}interval ", *bounds] + ([", n = ", figure(row["n"])] if row["n"] else []) + [")"]
        )
    return sentence


def _shared(group: Group, best: Sequence[Row]) -> Prose:
    """Who else has the best one's value."""
    value = best[0]["value"]
    others = [
        group.sweep.display_name(row["cell"]) for row in group.trained if row["value"] == value and row is not best[0]
    ]
    if len(best) > 1 or not others:
        return []
    return [f"; {listed(others)} {'has' if len(others) == 1 else 'have'} the same"]


def _percent(level: float | None) -> str:
    return "" if level is None else f"{100 * level:g}% "


def _margin(group: Group, row: Row) -> Prose:
    """How the best stands to the untrained policy, by how much."""
    lead, start = group.board.lead, group.control("sft")
    paired = versus(group, row["cell"], start["cell"] if start else "sft")
    if paired is not None and paired["difference"] is not None:
        verb = "It is not separable from"
        if significant(paired, alpha(group.rows)):
            verb = "It beats" if better_sign(group, paired) > 0 else "It is worse than"
        return [f"{verb} the untrained policy: difference ", *_difference(paired, lead), "."]
    standing = against_start(group, row)
    if standing is None:
        return []
    if start is None or start_is_null(group):
        lies = {1: "on the better side of", 0: "across", -1: "on the worse side of"}[standing]
        return [f"Its interval lies {lies} ", figure(lead.null, lead), ", where neither side is ahead."]
    how = f"lies {side(group, standing)}" if standing else "overlaps"
    return [f"Its interval {how} that of the untrained policy, which has ", figure(start["value"], lead), "."]


def _by_prompt(group: Group, row: Row) -> Prose:
    """The paired difference to the untrained policy in the metric that is compared, where another one leads."""
    of, start = by_prompt(group), group.control("sft")
    paired = versus(of, row["cell"], start["cell"] if start else "sft")
    if of is group or paired is None or paired["difference"] is None:
        return []
    verb = "is not separable from"
    if significant(paired, alpha(group.rows)):
        verb = "is better than" if better_sign(of, paired) > 0 else "is worse than"
    sentence = f"Prompt by prompt, its {of.board.lead.label} {verb} the untrained policy's: difference "
    return [sentence, *_difference(paired, of.board.lead), "."]


def _difference(paired: Row, metric: MetricDisplay) -> Prose:
    """A difference with its interval and p-value, adjusted where the table has that."""
    bounds = interval(paired, metric, signed=True)
    notes = [*(["interval ", *bounds] if bounds else []), *p_note(paired)]
    return [figure(paired["difference"], metric, signed=True), *([" (", *notes, ")"] if notes else [])]


def better_sign(group: Group, paired: Row) -> int:
    """+1 where the first side of a comparison is the better one."""
    return (group.board.lead.sign or 1) * ((paired["difference"] > 0) - (paired["difference"] < 0))


def _separable(group: Group, best: Row) -> Prose:
    """Which other trained policies the best one is separable from; where nothing tests that, how the intervals lie."""
    rivals = [row for row in group.trained if row["value"] is not None and row["cell"] != best["cell"]]
    paired = [row for row in rivals if tested(group, best["cell"], row["cell"])]
    spread = [row for row in rivals if row not in paired and None not in (row["ci_low"], best["ci_low"])]
    sentences = []
    if paired:
        who = f"{len(paired)} {'that are compared with it by prompt' if spread else 'other trained policies'}"
        words = (
            f"It is separable from {_name_or(group, paired, f'all {who}')}",
            f"It is separable from none of the {who}",
            "Not separable from this best one: ",
        )
        sentences.append(_rivals(group, best, paired, words))
    if spread:
        who = f"all {len(spread)} {'others' if paired else 'other trained policies'}"
        whose = f"{'that' if len(spread) == 1 else 'those'} of {_name_or(group, spread, who)}"
        lies, overlaps = f"Its interval lies {side(group, 1)} {whose}", "Its interval overlaps those of "
        sentences.append(_rivals(group, best, spread, (lies, overlaps + who, overlaps)))
    return [" ".join(sentences)] if sentences else []


def _rivals(group: Group, best: Row, rivals: Sequence[Row], words: tuple[str, str, str]) -> str:
    """The sentence for a best that is ahead of all, of none, or of some of its rivals."""
    close = [group.sweep.display_name(row["cell"]) for row in rivals if better(group, best, row) <= 0]
    ahead_of_all, of_none, of_some = words
    if not close:
        return f"{ahead_of_all}."
    return f"{of_some + listed(close) if len(close) < len(rivals) or len(rivals) == 1 else of_none}."


def _name_or(group: Group, rows: Sequence[Row], many: str) -> str:
    """The one policy by its name, or the words for many."""
    return group.sweep.display_name(rows[0]["cell"]) if len(rows) == 1 else many


def _tally(group: Group) -> Prose:
    """How many trained policies are above, below and not separable from the untrained one, and in which metric."""
    of, standing_of = standings(group)
    rows = [row for row in of.trained if row["cell"] in standing_of]
    if len(rows) < 2 or None in standing_of.values() or not any(standing_of.values()):
        return []
    above = [of.sweep.display_name(row["cell"]) for row in rows if standing_of[row["cell"]] == 1]
    below = [of.sweep.display_name(row["cell"]) for row in rows if standing_of[row["cell"]] == -1]
    share = "all" if len(above) == len(rows) else f"{len(above) or 'none'} of the"
    who = f"{share} {len(rows)} trained policies"
    verb = f"beat{'s' if len(above) == 1 else ''} the untrained one in {of.board.lead.label}"
    sentence, worse = f"{who.capitalize()} {verb}", "Worse than it"
    if not all(tested_to_start(of, row) for row in rows):
        start = "the null value" if start_is_null(of) else "that of the untrained one"
        where = f"lie {side(of, 1)} {start} in {of.board.lead.label}"
        sentence, worse = f"The intervals of {who} {where}", f"{side(of, -1).capitalize()} it"
    elif not above:  # which the first sentence has said
        return [f"Worse than the untrained policy: {listed(below, 6)}."]
    sentence += f": {listed(above, 6)}." if above and len(above) < len(rows) else "."
    return [sentence + (f" {worse}: {listed(below, 6)}." if below else "")]


def algorithms(group: Group, several: bool) -> list[Prose]:
    """What the comparisons over seeds claim about algorithms, the separable pairs first, then how many are not."""
    lead, rows, display_name = group.board.lead, comparisons(group, "algorithm"), group.sweep.display_name
    rows = [row for row in rows if row["difference"] is not None]
    sure = [row for row in rows if significant(row, alpha(group.rows))]
    sentences: list[Prose] = []
    for row in sorted(sure, key=lambda row: -abs(row["difference"]))[:MOST_PAIRS]:
        verb = "beats" if better_sign(group, row) > 0 else "loses to"
        bounds = interval(row, lead, signed=True)
        tail = [" (interval ", *bounds, ")"] if bounds else []
        difference = [" by a difference of ", figure(row["difference"], lead, signed=True), *tail]
        sentences.append(
            [
                Strong(display_name(row["a"])),
                f" {verb} ",
                Strong(display_name(row["b"])),
                *difference,
                f" on {where(group, several)}.",
            ]
        )
    unsure = [" and ".join(display_name(row[side]) for side in "ab") for row in rows if row not in sure]
    further = f" and {len(unsure) - MOST_PAIRS} more pairs" if len(unsure) > MOST_PAIRS else ""
    if unsure:
        sentences.append([f"Not separable on {where(group, several)}: {'; '.join(unsure[:MOST_PAIRS])}{further}."])
    return sentences
