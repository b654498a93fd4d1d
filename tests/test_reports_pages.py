"""The pages as files: every figure is in the tables, hostile text stays text, no network, equal in is equal out."""

import hashlib
import json
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import reports_world as world

import reports
from reports.build import visible
from reports.numbers import MINUS, THIN

VOID = {"meta", "link", "img", "br", "input"}
PAGES = ("index", "training", "cost", "comparisons", "samples")


class Page(HTMLParser):
    """A page as elements (tag, attributes, own text), with nesting checked as the parser goes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[int] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.elements[self.open[-1]][2].append(data)

    def figures(self) -> Iterator[tuple[float, str]]:
        """Every full value on the page with what is written beside it."""
        for _, attributes, text in self.elements:
            if "data-value" in attributes:
                yield float(attributes["data-value"]), "".join(text).strip()

    def texts(self, *tags: str) -> str:
        return "\n".join("".join(text) for tag, _, text in self.elements if tag in tags)


parsed = cache(Page)  # of the pages that several tests look at


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.language_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def report(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reports.build([sweep], tmp_path_factory.mktemp("report") / "report").parent


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Seeds, a game and a half-finished sweep side by side."""
    base = tmp_path_factory.mktemp("many")
    sweeps = [world.language_sweep(base / "a", seeds=(0, 1, 2)), world.game_sweep(base / "game")]
    return sweeps, reports.build(sweeps, base / "report").parent


def numbers_of(sweeps: list[Path]) -> set[float]:
    """Every number of the tables and of cells.json; differences with either sign, since a - b is shown as b - a too."""
    found: set[float] = set()
    for sweep in sweeps:
        for file in sweep.rglob("*.parquet"):
            frame = pd.read_parquet(file).select_dtypes("number")
            found |= {float(value) for column in frame for value in frame[column].dropna()}
        found |= means_over_seeds(pd.read_parquet(sweep / "results.parquet"))
        comparisons = sweep / "comparisons.parquet"
        if comparisons.exists():
            frame = pd.read_parquet(comparisons)[["difference", "ci_low", "ci_high"]]
            found |= {-float(value) for column in frame for value in frame[column]}
        cells = json.loads((sweep / "cells.json").read_text())
        found |= {float(stage["seconds"]) for cell in cells for stage in cell["stages"]}
        found |= {0.5, 50.0}  # null values of metrics.json
    return found


def means_over_seeds(results: pd.DataFrame) -> set[float]:
    """What a row that seeds share shows: the mean of each number over them."""
    alike = ["policy", "trainer", "options", "judge", "grader", "iteration", "leaderboard", "category", "metric"]
    values = results[results["value"].notna()].groupby(alike, sort=False)["value"]
    return {sum(of.tolist()) / len(of) for _, of in values}


def read(text: str) -> float | None:
    """A written figure as a number: the inverse of the formatter."""
    plain = text.replace(THIN, "").replace(MINUS, "-").replace("= ", "").lstrip("+")
    return None if plain.startswith("<") else float(plain)


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_on_the_pages_is_in_the_tables_and_written_as_it_is(sweep: Path, report: Path, name: str) -> None:
    _check_figures(parsed(report / f"{name}.html"), numbers_of([sweep]))


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_of_sweeps_side_by_side_is_in_their_tables(many: tuple[list[Path], Path], name: str) -> None:
    _check_figures(parsed(many[1] / f"{name}.html"), numbers_of(many[0]))


def _check_figures(page: Page, known: set[float]) -> None:
    figures = list(page.figures())
    assert figures or "None" not in str(figures)
    assert [value for value, _ in figures if value not in known] == []
    for value, text in figures:
        written = read(text)
        if written is None:
            assert value < 0.001
        else:
            assert abs(written - value) <= half_of_the_last_digit(text) + 1e-9 * abs(value)


def half_of_the_last_digit(text: str) -> float:
    digits, _, power = text.replace(THIN, "").replace(MINUS, "-").partition("e")
    return 0.5 * 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))


def test_no_decimal_stands_in_the_prose_without_its_full_value(report: Path) -> None:
    page = parsed(report / "index.html")
    loose = [
        "".join(text)
        for tag, attributes, text in page.elements
        if tag in ("p", "b", "li", "h1", "h2", "h3", "th", "td", "small", "summary", "figcaption")
        and "data-value" not in attributes
        and attributes.get("class") not in ("source", "equation")
    ]
    assert [text for text in loose if re.search(r"\d\.\d", text)] == []


def test_curves_say_in_their_titles_what_the_table_holds(sweep: Path, report: Path) -> None:
    titles = [
        text
        for tag, _, text in parsed(report / "index.html").elements
        if tag == "title" and "iterations 1, 2, 3: " in text[0]
    ]
    written = {number for text in titles for number in text[0].rpartition(": ")[2].split("; ")}
    results = pd.read_parquet(sweep / "results.parquet")["value"].dropna()
    allowed = {f"{value:.{places}f}" for value in results for places in (1, 2, 3)}
    assert len(titles) > 60
    assert written <= allowed


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_asked_of_a_network(report: Path, name: str) -> None:
    page = parsed(report / f"{name}.html")
    for _, attributes, _ in page.elements:
        for key in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            target = attributes.get(key, "#")
            assert target.startswith(("#", "data:,")) or re.fullmatch(
                r"(index|training|cost|comparisons|samples)\.html(#[\w-]+)?", target
            )
    style = page.texts("style")
    assert "@import" not in style
    assert set(re.findall(r"url\(([^)]*)\)", style)) <= {f"#m{slot}" for slot in range(8)}


@pytest.mark.parametrize("name", PAGES)
def test_only_our_own_script_may_run(report: Path, name: str) -> None:
    page = parsed(report / f"{name}.html")
    (script,) = [text for tag, _, text in page.elements if tag == "script"]
    (policy,) = [a["content"] for tag, a, _ in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = b64encode(hashlib.sha256("".join(script).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [key for _, attributes, _ in page.elements for key in attributes if key.startswith("on")]


@pytest.mark.parametrize("name", PAGES)
def test_ids_are_unique_and_links_inside_the_report_lead_somewhere(report: Path, name: str) -> None:
    pages = {page: parsed(report / f"{page}.html") for page in PAGES}
    ids = {page: [a["id"] for _, a, _ in found.elements if "id" in a] for page, found in pages.items()}
    assert len(ids[name]) == len(set(ids[name]))
    for _, attributes, _ in pages[name].elements:
        file, _, anchor = attributes.get("href", "").partition("#")
        if anchor:
            assert anchor in ids[file.removesuffix(".html") or name]


def test_hostile_text_stays_text(report: Path) -> None:
    samples = parsed(report / "samples.html")
    shown = samples.texts("div", "ins", "del")
    for text in ("</script>", "<img", "<svg", "{{", "}}", "{%", "&amp;", "&lt;b&gt;"):
        assert text in shown
    assert "⟨U+0007⟩" in shown
    assert "⟨U+202E⟩" in shown
    assert "\u202e" not in (report / "samples.html").read_text()
    assert not [tag for tag, attributes, _ in samples.elements if tag == "img" or "onload" in attributes]
    index = parsed(report / "index.html")
    assert "</script><script>document.title='owned'</script>" in index.texts("div")
    assert world.HOSTILE[1] in index.texts("pre")


def test_hostile_names_stay_text_everywhere(tmp_path: Path) -> None:
    matrix = [
        {**cell, "cell": world.HOSTILE[0] + str(i)}
        for i, cell in enumerate(world.cells(world.HOSTILE, world.HOSTILE[:2], [0]))
    ]
    common: dict[str, Any] = {"leaderboard": world.HOSTILE[2], "metric": world.HOSTILE[1], "grader": world.HOSTILE[0]}
    rows = [world.result(c, value=0.5, ci_low=0.4, ci_high=0.6, iteration=i, **common) for c in matrix for i in (1, 2)]
    documents = {
        "cells.json": matrix,
        "metrics.json": {world.HOSTILE[1]: {"better": "higher", "unit": world.HOSTILE[0]}},
    }
    index = reports.build([world.write(tmp_path / "sweep", {"results": rows}, documents)], tmp_path / "out")
    for name in PAGES:
        tags = {tag for tag, _, _ in Page(index.with_name(f"{name}.html")).elements}
        assert not tags & {"img", "textarea", "iframe"}
    assert len([1 for tag, _, _ in Page(index).elements if tag == "script"]) == 1


def test_control_and_reordering_characters_become_visible_and_markup_is_left_alone() -> None:
    assert visible("a\x00b\x1bc\u2066d") == "a⟨U+0000⟩b⟨U+001B⟩c⟨U+2066⟩d"
    assert visible("tab\tline\nend\r") == "tab\tline\nend\r"
    assert visible(3) == 3


def test_a_lone_surrogate_does_not_stop_the_report(tmp_path: Path) -> None:
    cell = {**world.cells(["onpo"], ["llm"], [0])[0], "reason": "broken \ud800 text", "state": "failed"}
    (tmp_path / "cells.json").write_text(json.dumps([cell]))
    assert "broken ? text" in reports.build([tmp_path], tmp_path / "out").read_text(encoding="utf-8")


def test_equal_tables_give_equal_bytes(sweep: Path, report: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib, reports; reports.build([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, sweep, tmp_path / "again"], check=True, env={"PYTHONHASHSEED": "77"})
    for name in PAGES:
        assert (tmp_path / "again" / f"{name}.html").read_bytes() == (report / f"{name}.html").read_bytes()


@pytest.mark.parametrize(
    "kept", [(), ("results.parquet",), ("cells.json",), ("metrics.json",), ("dynamics.parquet", "cells.json")]
)
def test_a_half_finished_sweep_says_what_is_missing(tmp_path: Path, kept: tuple[str, ...]) -> None:
    sweep = world.language_sweep(tmp_path / "sweep")
    for file in [*sweep.glob("*.*"), *sweep.glob("samples/*")]:
        if file.name not in kept:
            file.unlink()
    index = reports.build([sweep], tmp_path / "out")
    text = Page(index).texts("li", "p")
    for name in {"results", "comparisons", "dynamics", "samples"} - {file.partition(".")[0] for file in kept}:
        assert name in text
    assert ("Nothing to rank yet" in text) is ("results.parquet" not in kept or len(kept) < 2)


def test_what_is_empty_is_not_in_a_menu(report: Path, tmp_path: Path) -> None:
    game = reports.build([world.game_sweep(tmp_path / "game")], tmp_path / "out").parent
    links = {
        folder: {a["href"] for tag, a, _ in Page(folder / "index.html").elements if tag == "a" and "href" in a}
        for folder in (report, game)
    }
    empty = {"#cross", "#comparisons", "#samples"}
    pages = {"training.html", "comparisons.html", "samples.html"}
    assert empty | pages | {"#curves", "#leaderboards"} <= links[report]
    assert not (empty | pages) & links[game]
    assert {"#curves", "#leaderboards", "#matrix", "#cells"} <= links[game]


def test_empty_tables_are_as_good_as_none(tmp_path: Path) -> None:
    for name in ("results", "comparisons", "dynamics"):
        pd.DataFrame({"cell": pd.Series([], dtype=object)}).to_parquet(tmp_path / f"{name}.parquet")
    for name in ("metrics.json", "provenance.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.yaml").write_text("")
    assert "Nothing to rank yet" in reports.build([tmp_path], tmp_path / "out").read_text()


def test_rows_with_nan_and_infinity_are_shown_not_drawn(tmp_path: Path) -> None:
    cell = world.cells(["onpo"], ["llm"], [0])[0]
    rows = [
        world.result(cell, leaderboard="b", metric="win_rate", grader="llm", value=value, iteration=iteration)
        for iteration, value in enumerate((float("nan"), float("inf"), 0.5, float("-inf")), 1)
    ]
    index = reports.build([world.write(tmp_path, {"results": rows}, world.documents([cell]))], tmp_path / "out")
    assert f"{MINUS}∞" in index.read_text()
    assert "nan" not in re.sub(r"<(style|script)>.*?</\1>|nan\w+", "", index.read_text(), flags=re.S).lower()


def test_the_pages_of_a_common_sweep_stay_small(tmp_path: Path) -> None:
    sweep = world.language_sweep(tmp_path / "sweep", graders=["panel", "llm", "pairrm"])
    index = reports.build([sweep], tmp_path / "out")
    sizes = {name: index.with_name(f"{name}.html").stat().st_size for name in PAGES}
    assert max(size for name, size in sizes.items() if name != "samples") <= 800_000
    assert sizes["samples"] < 10_000_000


def test_sweeps_side_by_side_share_tables_with_a_column_that_names_them(many: tuple[list[Path], Path]) -> None:
    page = parsed(many[1] / "index.html")
    headers = [text for tag, _, text in page.elements if tag == "th"]
    assert ["sweep"] in headers
    assert "stories, duality-gap" in page.texts("h1")


def test_log_axes_are_drawn_where_metrics_json_asks(many: tuple[list[Path], Path]) -> None:
    text = (many[1] / "index.html").read_text()
    assert "both axes logarithmic" in text
    assert re.search(r'<text class="y"[^>]*>10⁻', text)


def test_seeds_share_a_row_and_show_their_range(many: tuple[list[Path], Path]) -> None:
    sweep = reports.tables.read_sweep(many[0][0])  # type: ignore[attr-defined]
    wanted = {"leaderboard": "head-to-head", "grader": "panel", "trainer": "onpo", "judge": "llm"}
    values = [row["value"] for row in sweep.final if all(row[key] == value for key, value in wanted.items())]
    text = (many[1] / "index.html").read_text()
    low, high = (f'<span data-value="{value!r}">{value:.3f}</span>' for value in (min(values), max(values)))
    assert f'{low}<span class="to">–</span>{high}' in text


def test_provenance_shows_equations_conventions_versions_command_and_prompt(report: Path) -> None:
    page = parsed(report / "index.html")
    assert world.EQUATION in page.texts("p")
    shown = page.texts("dd", "dt", "p", "li", "pre")
    for text in (
        "target, nats",
        "2.5",
        "step size",
        "arXiv 2502.16852",
        "2.13.0",
        "nashbench sweep",
        "were longer than the context",
    ):
        assert text in shown
    assert "[1, 403, 407]" in shown


def test_cells_show_state_reason_and_stages(report: Path) -> None:
    text = (report / "index.html").read_text()
    assert "✕ 1 failed" in text
    assert "○ 1 missing" in text
    assert "fit: loss is NaN at step 12" in text
    assert "running" not in re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.S)


def test_every_metric_of_every_board_can_be_chosen_in_tables_and_maps(report: Path) -> None:
    page = parsed(report / "index.html")
    views = [(a["data-board"], number) for number, (_, a, _) in enumerate(page.elements) if "data-board" in a]
    assert len(views) == 5 + 5 + 4 + 2  # tables, trainer x judge, judge x grader (not lm-eval), curves of two boards
    shown = [a["data-view"] for _, a, _ in page.elements if "data-view" in a]
    for metric in ("length-controlled win rate", "discrete win rate", "prompt win rate", "turn 2"):
        assert shown.count(metric) >= 3
    assert shown.count("truth · accuracy") == 2


def test_held_out_votes_are_a_table_a_metric_with_what_they_say(report: Path) -> None:
    page = parsed(report / "index.html")
    ids = {a["id"] for _, a, _ in page.elements if "id" in a}
    assert {"held-out-1-1", "between-1-1", "held-out-1-2", "between-1-2"} <= ids
    assert "predicts held-out votes better than" in page.texts("li")
    assert "reward-model gives each response one score" in page.texts("li")


def test_a_sweep_without_a_table_of_judges_says_nothing_of_votes(sweep: Path, tmp_path: Path) -> None:
    (copied := tmp_path / "sweep").mkdir()
    (copied / "results.parquet").write_bytes((sweep / "results.parquet").read_bytes())
    text = reports.build([copied], tmp_path / "out").read_text()
    assert "held-out votes" not in text
    assert "no judges" not in text


def test_samples_show_boards_conversations_ratings_and_games_and_no_task_of_lm_eval(report: Path) -> None:
    page = parsed(report / "samples.html")
    shown = page.texts("h3", "h4", "div", "span", "small", "b")
    for text in ("head-to-head", "mt-bench", "arena-hard", "turn 2", "thinking left out", "B>>A, then A=B", "Shorter."):
        assert text in shown
    assert "lm-eval" not in page.texts("h3")
    assert {6.75, 7.0, 0.875} <= {value for value, _ in page.figures()}
    assert "reference answer" not in page.texts("h4")  # there was none to compare with
    rated = [number for number, (_, a, _) in enumerate(page.elements) if a.get("data-outcome") == "rated"]
    assert len(rated) == 8
    assert "<b>1</b>" in shown


def test_failed_verdicts_stay_failed_with_their_reason(report: Path) -> None:
    page = parsed(report / "samples.html")
    failed = [a for _, a, _ in page.elements if "failed" in a.get("data-outcome", "").split()]
    assert len(failed) == 4
    assert "failed: unparsed: neither A nor B" in page.texts("span")


def test_importing_reports_is_cheap() -> None:
    code = "import sys, reports; sys.exit(any(m in sys.modules for m in ('pandas', 'numpy', 'jinja2', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
