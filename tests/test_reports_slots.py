"""A trainer has one colour in every report, and series of one chart are told apart."""

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import reports_world as world

import reports
from reports.sections.curves import scores
from reports.series_style import COLOURS, JUDGES, SLOTS, TRAINERS, assign_slots
from reports.tables import read_sweep


def of(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def test_a_trainer_keeps_its_slot_whoever_else_is_there_and_in_whatever_order() -> None:
    alone = {name: assign_slots(of(name), TRAINERS)[name] for name in TRAINERS}
    assert assign_slots(of(*reversed(TRAINERS)), TRAINERS) == alone
    assert len(set(alone.values())) == len(TRAINERS)


@pytest.mark.parametrize(("group", "known"), [("trainers", TRAINERS), ("judges", JUDGES)])
def test_every_registered_name_of_this_package_has_a_place_of_its_own(group: str, known: tuple[str, ...]) -> None:
    own = {e.name for e in entry_points(group=f"nashbench.{group}") if e.value.startswith(f"{group}.")}
    assert own <= set(known)
    assert len(set(known)) == len(known) <= SLOTS


def test_the_first_setting_of_a_trainer_has_its_slot_and_all_settings_differ() -> None:
    kinds = {f"ipo-md · mixture {share}": "ipo-md" for share in range(10)} | of("onpo")
    found = assign_slots(kinds, TRAINERS)
    assert found["ipo-md · mixture 0"] == TRAINERS.index("ipo-md")
    assert found["onpo"] == TRAINERS.index("onpo")
    assert len(set(found.values())) == len(kinds)
    assert sorted(found.values())[:COLOURS] == list(range(COLOURS))  # colours before dashes


def test_a_name_from_elsewhere_keeps_its_slot_unless_another_series_holds_it() -> None:
    alone = assign_slots(of("mine"), TRAINERS)["mine"]
    others = [name for name in TRAINERS[:5] if TRAINERS.index(name) != alone]
    assert alone < COLOURS
    assert assign_slots(of(*others, "mine"), TRAINERS)["mine"] == alone
    assert assign_slots(of(TRAINERS[alone], "mine"), TRAINERS)["mine"] != alone


def test_more_series_than_slots_repeat_them() -> None:
    found = assign_slots(of(*(f"arm {i}" for i in range(SLOTS + 6))), ())
    assert set(found.values()) == set(range(SLOTS))


def test_charts_of_two_sweeps_colour_a_trainer_alike(tmp_path: Path) -> None:
    drawn = []
    for trainers in (("onpo", "dpo", "slic"), ("slic", "ipo-md", "dpo")):
        sweep = read_sweep(world.language_sweep(tmp_path / trainers[0], trainers=trainers, broken=False))
        lines = [line for facet in scores([sweep]) for panel in facet["panels"] for line in panel["lines"]]
        drawn.append({line["name"]: (line["slot"], line["dash"]) for line in lines})
    assert set(drawn[0]) & set(drawn[1]) == {"dpo", "slic"}
    assert all(drawn[0][name] == drawn[1][name] for name in ("dpo", "slic"))


def test_every_colour_and_dash_has_its_rule_in_the_style_sheet(tmp_path: Path) -> None:
    style = reports.build([world.game_sweep(tmp_path / "sweep")], tmp_path / "out").read_text()
    assert all(re.search(rf"\.s{slot} {{ color: var\(--c{slot}\); }}", style) for slot in range(COLOURS))
    assert all(f"{rule} .line {{ stroke-dasharray" in style for rule in (".dashed", ".dotted"))
