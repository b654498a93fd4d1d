"""The verdict: sentences made from the statistics, and the caveats that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reports.boards import (
    Group,
    against_start,
    alpha,
    better,
    boards,
    compared,
    comparisons,
    groups,
    median_first,
    significant,
    start_is_null,
    tested,
    versus,
)
from reports.numbers import Metric
from reports.sections.common import (
    Prose,
    Strong,
    counted,
    figure,
    interval,
    listed,
    p_note,
    seeds_of,
)
from reports.sections.training import alarms
from reports.tables import Row, Sweep, grouped, unique

MOST_PAIRS = 6
MOST_TASKS = 4  # of a board that scores its tasks alone


def verdict(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """The findings, board by board, an independent grader before one that trained, and the caveats."""
    views = [view for board in boards(sweeps) for view in (board.views[:MOST_TASKS] if board.is_of_tasks else [board])]
    found = [group for view in views if view.lead.sign for group in groups(sweeps, view)]
    found = [group for group in found if any(row["value"] is not None for row in group.trained)]
    order = unique(group.board.name for group in found)
    found.sort(
        key=lambda group: (order.index(group.board.name), any(row["judge"] == group.grader for row in group.trained))
    )
    several = len(sweeps) > 1
    return {
        "findings": [
            {"where": _where(group, several), "sentences": finding(group), "tags": _tags(group)} for group in found
        ],
        "algorithms": [prose for group in found for prose in algorithms(group, several)],
        "caveats": caveats(sweeps, found),
    }


def _tags(group: Group) -> dict[str, str]:
    return {"sweep": group.sweep.name, "leaderboard": group.board.name, "grader": group.grader}


def _where(group: Group, several: bool) -> str:
    graded = f", graded by {group.grader}" if group.grader else ""
    policies = len({row["policy"] for row in group.sweep.info.values()}) > 1
    return (
        " · ".join(filter(None, (group.board.name, group.board.lead.category)))
        + graded
        + (f", {group.policy}" if policies else "")
        + (f" ({group.sweep.name})" if several else "")
    )


def finding(group: Group) -> list[Prose]:
    """What one board says under one grader: the best, its standing to the untrained policy, and who else beats that."""
    arms = _arms(group)
    best = arms[0]
    sentences = [_best(group, best)]
    if len(best) == 1:
        sentences += [_margin(group, best[0]), _by_prompt(group, best[0]), _separable(group, best[0])]
    return [sentence for sentence in [*sentences, _tally(group, arms)] if sentence]


def _arms(group: Group) -> list[list[Row]]:
    """The trained rows by arm and training judge, a row a seed; the arm with the best median seed first."""
    rows = [row for row in group.trained if row["value"] is not None]
    arms = grouped(rows, lambda row: (group.sweep.info[row["cell"]]["arm"], row["judge"])).values()
    return sorted(arms, key=median_first(group.board.lead))


def _name(group: Group, rows: Sequence[Row]) -> Prose:
    arm, judge = group.sweep.info[rows[0]["cell"]]["arm"], rows[0]["judge"]
    return [Strong(arm), *([" trained by ", Strong(judge)] if judge else [])]


def _best(group: Group, rows: Sequence[Row]) -> Prose:
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
            ".",
        ]
        return [*_name(group, rows), f" has the {word} {lead.label} at the median", *over]
    row, level = rows[0], rows[0]["ci_level"]
    bounds = interval(row, lead)
    sentence = [*_name(group, rows), f" has the {word} {lead.label}, ", figure(row["value"], lead)]
    if bounds:
        sentence += (
            [f" ({_percent(level)}interval ", *bounds] + ([", n = ", figure(row["n"])] if row["n"] else []) + [")"]
        )
    return [*sentence, "."]


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
        side = {1: "on the better side of", 0: "across", -1: "on the worse side of"}[standing]
        return [f"Its interval lies {side} ", figure(lead.null, lead), ", where neither side is ahead."]
    how = f"lies {_side(group, standing)}" if standing else "overlaps"
    return [f"Its interval {how} that of the untrained policy, which has ", figure(start["value"], lead), "."]


def _side(group: Group, standing: int) -> str:
    return "above" if standing * group.board.lead.sign > 0 else "below"


def _by_prompt(group: Group, row: Row) -> Prose:
    """The paired difference to the untrained policy in the metric that is compared, where another one leads."""
    view, start = compared([group.sweep], group.board), group.control("sft")
    paired = versus(replace(group, board=view), row["cell"], start["cell"] if start else "sft")
    if view.lead == group.board.lead or paired is None or paired["difference"] is None:
        return []
    verb = "is not separable from"
    if significant(paired, alpha(group.rows)):
        verb = "is better than" if better_sign(replace(group, board=view), paired) > 0 else "is worse than"
    sentence = f"Prompt by prompt, its {view.lead.label} {verb} the untrained policy's: difference "
    return [sentence, *_difference(paired, view.lead), "."]


def _difference(paired: Row, metric: Metric) -> Prose:
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
    found = []
    if paired:
        who = f"{len(paired)} {'that are compared with it by prompt' if spread else 'other trained policies'}"
        words = (
            f"It is separable from all {who}",
            f"It is separable from none of the {who}",
            "Not separable from it: ",
        )
        found.append(_rivals(group, best, paired, words))
    if spread:
        who = f"all {len(spread)} {'others' if paired else 'other trained policies'}"
        lies, overlaps = f"Its interval lies {_side(group, 1)} those of {who}", "Its interval overlaps those of "
        found.append(_rivals(group, best, spread, (lies, overlaps + who, overlaps)))
    return [" ".join(found)] if found else []


def _rivals(group: Group, best: Row, rivals: Sequence[Row], words: tuple[str, str, str]) -> str:
    """The sentence for a best that is ahead of all, of none, or of some of its rivals."""
    close = [group.sweep.called(row["cell"]) for row in rivals if better(group, best, row) <= 0]
    ahead_of_all, of_none, of_some = words
    return f"{of_some + listed(close) if 0 < len(close) < len(rivals) else of_none if close else ahead_of_all}."


def _tally(group: Group, arms: Sequence[Sequence[Row]]) -> Prose:
    """How many trained policies are above, below and not separable from the untrained one."""
    rows = [row for of_arm in arms for row in of_arm]
    standings = {row["cell"]: against_start(group, row) for row in rows}
    if len(rows) < 2 or None in standings.values() or all(row["ci_low"] is None for row in rows):
        return []
    above = [group.sweep.called(row["cell"]) for row in rows if standings[row["cell"]] == 1]
    below = [group.sweep.called(row["cell"]) for row in rows if standings[row["cell"]] == -1]
    share = "all" if len(above) == len(rows) else f"{len(above) or 'none'} of the"
    who = f"{share} {len(rows)} trained policies"
    sentence, worse = f"{who.capitalize()} beat{'s' if len(above) == 1 else ''} the untrained one", "Worse than it"
    if not all(_is_tested(group, row) for row in rows):
        start = "the null value" if start_is_null(group) else "that of the untrained one"
        sentence, worse = f"The intervals of {who} lie {_side(group, 1)} {start}", f"{_side(group, -1).capitalize()} it"
    sentence += f": {listed(above, 6)}." if above and len(above) < len(rows) else "."
    return [sentence + (f" {worse}: {listed(below, 6)}." if below else "")]


def _is_tested(group: Group, row: Row) -> bool:
    """Whether a paired comparison says how a policy stands to the untrained one."""
    start = group.control("sft")
    return start is not None and not start_is_null(group) and tested(group, row["cell"], start["cell"])


def algorithms(group: Group, several: bool) -> list[Prose]:
    """What the comparisons over seeds claim about algorithms, the separable pairs first, then how many are not."""
    lead, rows, called = group.board.lead, comparisons(group, "algorithm"), group.sweep.called
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
                Strong(called(row["a"])),
                f" {verb} ",
                Strong(called(row["b"])),
                *difference,
                f" on {_where(group, several)}.",
            ]
        )
    unsure = [" and ".join(called(row[side]) for side in "ab") for row in rows if row not in sure]
    further = f" and {len(unsure) - MOST_PAIRS} more pairs" if len(unsure) > MOST_PAIRS else ""
    if unsure:
        sentences.append([f"Not separable on {_where(group, several)}: {'; '.join(unsure[:MOST_PAIRS])}{further}."])
    return sentences


def caveats(sweeps: Sequence[Sweep], found: Sequence[Group]) -> list[Prose]:
    """What a reader must know before quoting the verdict."""
    return [
        *(caveat for sweep in sweeps for caveat in _undone(sweep)),
        *_one_seed(sweeps),
        *_own_judge(found),
        *_prompts(found),
        *(caveat for sweep in sweeps for caveat in _coverage(sweep)),
        *(caveat for group in found for caveat in _controls(group)),
        *_alarms(sweeps),
        *([f"{sweep.name}: no {listed(sweep.absent, 9)} yet."] for sweep in sweeps if sweep.absent),
        *([f"{sweep.name}: {note}."] for sweep in sweeps for note in sweep.notes),
    ]


def _undone(sweep: Sweep) -> list[Prose]:
    by_state = grouped((c for c in sweep.cells if c["state"] != "done"), lambda cell: cell["state"])
    total = counted(len(sweep.cells), "cell")
    return [
        [f"{sweep.name}: {len(cells)} of {total} {state}: {listed([sweep.called(cell['cell']) for cell in cells], 6)}."]
        for state, cells in by_state.items()
    ]


def _one_seed(sweeps: Sequence[Sweep]) -> list[Prose]:
    names = [sweep.name for sweep in sweeps if len(seeds_of([sweep])) == 1]
    if not names:
        return []
    where = f" in {listed(names)}" if len(sweeps) > 1 else ""
    return [[f"One seed{where}: these are statements on these checkpoints, not on the algorithms."]]


def _prompts(found: Sequence[Group]) -> list[Prose]:
    """How many prompts each board's scores rest on."""
    rows = [(group.board.name, row["n"]) for group in found for row in group.trained if row["n"] and row["ci_low"]]
    counts = [
        [figure(min(n for _, n in members)), f" ({board})", ", "]
        for board, members in grouped(rows, lambda pair: pair[0]).items()
    ]
    if not counts:
        return []
    listing = [part for count in counts for part in count][:-1]
    text = ". The intervals say how far scores would move with other prompts, not with other training runs."
    return [["Prompts or questions behind a score: ", *listing, text]]


def _own_judge(found: Sequence[Group]) -> list[Prose]:
    rows = [row for group in found for row in group.trained]
    own = [row for row in rows if row["judge"] and row["judge"] == row["grader"]]
    if not own:
        return []
    return [[f"{len(own)} of {counted(len(rows), 'score')} come from the very judge that trained the policy (◆)."]]


def _coverage(sweep: Sweep) -> list[Prose]:
    rows = [row for row in sweep.final if row["coverage"] is not None and row["coverage"] < 1]
    without = unique(sweep.called(row["cell"]) for row in rows if row["value"] is None)
    rows = [row for row in rows if row["value"] is not None]
    none = [[f"{sweep.name}: some score could not be computed for {listed(without, 6)}."]] if without else []
    if not rows:
        return none
    worst = min(rows, key=lambda row: row["coverage"])
    scores = {(row["cell"], row["leaderboard"], row["grader"]) for row in rows}
    where = f"{sweep.called(worst['cell'])} on {worst['leaderboard']}" + (
        f", graded by {worst['grader']}" if worst["grader"] else ""
    )
    start = f"{sweep.name}: {counted(len(scores), 'score')} with failed verdicts; lowest coverage "
    return [[start, figure(worst["coverage"]), f" ({where})."], *none]


def _controls(group: Group) -> list[Prose]:
    """A control that nothing trained, yet that beats the untrained policy or some trained one."""
    caveats = []
    for name, what in (("constant", "one fixed answer"), ("longest", "the longest of several untrained answers")):
        row = group.control(name)
        if row is None or row["value"] is None:
            continue
        beaten = [other for other in group.trained if other["value"] is not None and better(group, row, other) > 0]
        over = ["the untrained policy"] if against_start(group, row) == 1 else []
        sure = all(tested(group, row["cell"], other["cell"]) for other in beaten) and (
            not over or _is_tested(group, row)
        )
        over += [f"{len(beaten)} of {len(group.trained)} trained policies"] if beaten else []
        if over:
            verb = "beats" if sure else f"lies, by its interval alone, {_side(group, 1)}"
            text = [f"The control {name} ({what}) {verb} {' and '.join(over)} on {_where(group, False)} with "]
            caveats.append([*text, figure(row["value"], group.board.lead), ", without any training."])
    return caveats


def _alarms(sweeps: Sequence[Sweep]) -> list[Prose]:
    rang = alarms(sweeps)["rang"]
    if not rang:
        return []
    cells = {(entry["tags"]["sweep"], entry["row"]["cell"]) for entry in rang}
    names = unique(entry["name"] for entry in rang)
    return [[f"Training alarms rang in {counted(len(cells), 'cell')}: {listed(names)}."]]
