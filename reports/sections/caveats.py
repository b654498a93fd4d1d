"""What a reader must know before quoting the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from reports.boards import Arm, Group
from reports.sections.common import Prose, counted, figure, is_game, kinds, listed, seeds_of, spread, where
from reports.sections.ties import ties
from reports.sections.training import alarms
from reports.standings import against_null, better
from reports.tables import Row, Sweep, grouped, is_control, unique

CONTROLS = {"longest": "the longest of several untrained answers", "constant": "one fixed answer"}
FAR_APART = 1.5  # times as much work as another did
CUT = 0.02  # share of answers that did not end by themselves


def caveats(sweeps: Sequence[Sweep], with_findings: Sequence[Group], scored: Sequence[Group]) -> list[Prose]:
    """What to know before quoting: of the groups with findings, or of all scores where nothing is trained."""
    return [
        *(caveat for sweep in sweeps for caveat in _undone(sweep)),
        *_untrained_rivals(with_findings),
        *_alarms(sweeps),
        *_one_seed(sweeps),
        *_collapsed(with_findings),
        *_start_apart(with_findings),
        *_ties(scored),
        *_own_judge(with_findings),
        *_prompts(scored),
        *(caveat for sweep in sweeps for caveat in _unfinished(sweep)),
        *(caveat for sweep in sweeps for caveat in _coverage(sweep)),
        *(caveat for sweep in sweeps for caveat in _work(sweep)),
        *(caveat for sweep in sweeps for caveat in _devices(sweep)),
        *_controls(with_findings),
        *([f"{sweep.name}: no {listed(absent, 9)} yet."] for sweep in sweeps if (absent := _absent(sweep))),
        *([f"{sweep.name}: {note}."] for sweep in sweeps for note in sweep.notes),
    ]


def _devices(sweep: Sweep) -> list[Prose]:
    """Where artifacts of several kinds of machine meet: equal keys, and numbers that may differ in their last bits."""
    kinds = [kind for kind in sweep.provenance.get("environments") or [] if isinstance(kind, dict)]
    named = [f"{kind.get('device')} ({counted(len(kind.get('cells') or []), 'cell')})" for kind in kinds]
    if len({kind.get("device") for kind in kinds}) < 2:
        return []
    return [[f"{sweep.name}: made on different kinds of device, {listed(named, 6)}; rounding differs between them."]]


def _absent(sweep: Sweep) -> list[str]:
    """What is not there yet; an exact game never has samples."""
    return [name for name in sweep.absent if name != "samples" or not is_game(sweep)]


def _undone(sweep: Sweep) -> list[Prose]:
    by_state = grouped((c for c in sweep.cells if c["state"] != "done"), lambda cell: cell["state"])
    total = counted(len(sweep.cells), "cell")
    undone = {state: [sweep.display_name(cell["cell"]) for cell in cells] for state, cells in by_state.items()}
    return [[f"{sweep.name}: {len(names)} of {total} {state}: {listed(names, 6)}."] for state, names in undone.items()]


def _one_seed(sweeps: Sequence[Sweep]) -> list[Prose]:
    names = [sweep.name for sweep in sweeps if len(seeds_of([sweep])) == 1 and not is_game(sweep)]
    if not names:
        return []
    where = f" in {listed(names)}" if len(sweeps) > 1 else ""
    return [[f"One seed{where}: these are statements on these checkpoints, not on the algorithms."]]


def _prompts(groups: Sequence[Group]) -> list[Prose]:
    """How many prompts each board's scores rest on: the least and the most where its scores differ in that."""
    rows = [
        (group.board.name, row["n"]) for group in groups for row in group.trained or group.rows if _has_interval(row)
    ]
    counts = [
        [*_ends([n for _, n in members]), f" ({board})", ", "]
        for board, members in grouped(rows, lambda pair: pair[0]).items()
    ]
    if not counts:
        return []
    listing = [part for count in counts for part in count][:-1]
    text = ". The intervals say how far scores would move with other prompts, not with other training runs."
    return [["Prompts or questions behind a score: ", *listing, text]]


def _has_interval(row: Row) -> bool:
    """Whether a score rests on a number of prompts and has an interval over them."""
    return bool(row["n"]) and row["ci_low"] is not None


def _ends(counts: Sequence[int]) -> Prose:
    """'80', or '64 to 200' where counts differ."""
    low, *high = spread(counts)
    return [low, *(part for end in high for part in (" to ", end))]


def _own_judge(groups: Sequence[Group]) -> list[Prose]:
    rows = [row for group in groups for row in group.trained]
    own = [row for row in rows if row["judge"] and row["judge"] == row["grader"]]
    if not own:
        return []
    return [[f"{len(own)} of {counted(len(rows), 'score')} come from the very judge that trained the policy (◆)."]]


def _coverage(sweep: Sweep) -> list[Prose]:
    rows = [row for row in sweep.final if row["coverage"] is not None and row["coverage"] < 1]
    without = unique(sweep.display_name(row["cell"]) for row in rows if row["value"] is None)
    rows = [row for row in rows if row["value"] is not None]
    none = [[f"{sweep.name}: some score could not be computed for {listed(without, 6)}."]] if without else []
    if not rows:
        return none
    worst = min(rows, key=lambda row: row["coverage"])
    scores = {(row["cell"], row["leaderboard"], row["grader"]) for row in rows}
    where = f"{sweep.display_name(worst['cell'])} on {worst['leaderboard']}" + (
        f", graded by {worst['grader']}" if worst["grader"] else ""
    )
    start = f"{sweep.name}: {counted(len(scores), 'score')} with failed verdicts; lowest coverage "
    return [[start, figure(worst["coverage"]), f" ({where})."], *none]


def _unfinished(sweep: Sweep) -> list[Prose]:
    """The boards on which some policy's answers were cut: a sentence each, with the largest share."""
    rows = [row for row in sweep.final if row["metric"] == "unfinished_share" and row["value"] is not None]
    caveats: list[Prose] = []
    for board, members in grouped(rows, lambda row: row["leaderboard"]).items():
        worst = max(members, key=lambda row: row["value"])
        if worst["value"] > CUT:
            start = f"{sweep.name}: answers on {board} were cut at its max_tokens, the largest share "
            caveats.append([start, figure(worst["value"]), f" ({sweep.display_name(worst['cell'])})."])
    return caveats


def _untrained_rivals(groups: Sequence[Group]) -> list[Prose]:
    """The controls that the best trained policy of a board does not beat."""
    caveats = []
    for name, what in CONTROLS.items():
        rivals = [group for group in groups if _is_unbeaten(group, group.control(name))]
        boards = listed([where(group, False) for group in rivals], 6)
        if rivals:
            text = f"The control {name} ({what}), without any training, is not beaten by the best trained policy on "
            caveats.append([f"{text}{boards}."])
    return caveats


def _is_unbeaten(group: Group, control: Arm | None) -> bool:
    standing = None if control is None or group.is_exact else better(group, group.arms[0], control)
    return standing is not None and standing <= 0


def _start_apart(groups: Sequence[Group]) -> list[Prose]:
    """The boards where the untrained policy is not at the value where neither side is ahead."""
    caveats: list[Prose] = []
    for group in groups:
        start, lead = group.control("sft"), group.board.lead
        if start is not None and against_null(group, start):
            text = f"The untrained policy itself has a {lead.label} of "
            tail = f" on {where(group, False)}: read differences from it, not from "
            caveats.append([text, figure(start.value, lead), tail, figure(lead.null, lead), "."])
    return caveats


def _ties(groups: Sequence[Group]) -> list[Prose]:
    """The graders most of whose games on a board are ties."""
    graders = {(group.sweep.name, group.board.name, group.grader): group.sweep for group in groups}
    several = _several(groups)
    return [
        [f"{name}: ", *note] if several else note
        for (name, board, grader), sweep in graders.items()
        if (note := ties(sweep, board, grader))
    ]


def _work(sweep: Sweep) -> list[Prose]:
    """The least and the most that the arms of a sweep sampled, asked and stepped, where these are far apart."""
    rows = {row["cell"]: row for row in sweep.final if not is_control(row)}.values()
    differences: Prose = []
    for key in ("samples", "queries", "steps"):
        amounts = [(row[key], sweep.info[row["cell"]]["arm"]) for row in rows if row[key] is not None]
        least, most = min(amounts, default=(0, ""))[0], max(amounts, default=(0, ""))[0]
        if most > FAR_APART * least:
            ends = [unique(arm for value, arm in amounts if value == end) for end in (least, most)]
            differences += [
                ", " if differences else "",
                f"{key} a policy from ",
                figure(least),
                f" ({listed(ends[0])}) to ",
            ]
            differences += [figure(most), f" ({listed(ends[1])})"]
    return [[f"The trainers of {sweep.name} did different amounts of work: ", *differences, "."]] if differences else []


def _controls(groups: Sequence[Group]) -> list[Prose]:
    """The controls that nothing trained, yet that beat the untrained policy or some trained one: a sentence each."""
    caveats: list[Prose] = []
    for name, what in CONTROLS.items():
        several = _several(groups)
        clauses = [clause for group in groups if (clause := _beats(group, group.control(name), several))]
        if clauses:
            listing = [part for clause in clauses for part in [*clause, "; "]][:-1]
            caveats.append([f"The control {name} ({what}), without any training, ", *listing, "."])
    return caveats


def _several(groups: Sequence[Group]) -> bool:
    """Whether they are of more than one sweep, so that each is named."""
    return len({group.sweep.name for group in groups}) > 1


def _beats(group: Group, control: Arm | None, several: bool) -> Prose:
    """Whom a control beats on one board."""
    if control is None:
        return []
    standings = [better(group, control, arm) for arm in group.arms]
    beaten, start = standings.count(1), group.control("sft")
    over = ["the untrained policy"] if start is not None and better(group, control, start) == 1 else []
    who = f"trained {kinds(group, len(standings))}"
    over += [f"{beaten} of {len(standings)} {who}"] if beaten else []
    text = f"beats {' and '.join(over)} on {where(group, several)} with "
    return [text, figure(control.value, group.board.lead)] if over else []


def _collapsed(groups: Sequence[Group]) -> list[Prose]:
    """The seeds under which an arm lies far below its other ones."""
    several = _several(groups)
    return [
        [
            f"{arm.label} collapsed under seed {arm.collapsed} on {where(group, several)}: intervals over seeds cover "
            "less than they say where training sometimes collapses."
        ]
        for group in groups
        for arm in group.arms
        if arm.collapsed
    ]


def _alarms(sweeps: Sequence[Sweep]) -> list[Prose]:
    """Which alarms rang for which policies: a sentence each."""
    triggered = [
        (entry["name"], sweep.display_name(entry["row"]["cell"]))
        for sweep in sweeps
        for entry in alarms([sweep])["triggered"]
    ]
    return [
        [f"The alarm {name} rang for {listed(unique(cell for _, cell in cells))}."]
        for name, cells in grouped(triggered, lambda pair: pair[0]).items()
    ]
