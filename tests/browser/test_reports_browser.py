"""The pages in a real browser, from file://: silent console, no request, and what can be clicked works.

Speaks the DevTools protocol to a headless Chromium over a pipe; skips where there is no Chromium.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import reports_world as world

import reports

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PAGES = ("index", "training", "cost", "comparisons", "samples")
LIMIT = 60.0  # seconds for one answer of the browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


class Browser:
    """A headless Chromium with one tab."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        child_in, self.out = _high(os.pipe())
        self.into, child_out = _high(os.pipe())

        def wire() -> None:
            os.dup2(child_in, 3)
            os.dup2(child_out, 4)

        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(command, pass_fds=(3, 4), preexec_fn=wire, stderr=subprocess.DEVNULL)
        os.close(child_in)
        os.close(child_out)
        self.buffer, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; events that come before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | (
            {"sessionId": self.session} if self.session else {}
        )
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _message(self) -> dict[str, Any]:
        limit = time.monotonic() + LIMIT
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.into], [], [], max(0.0, limit - time.monotonic()))
            assert ready, "the browser does not answer"
            chunk = os.read(self.into, 1 << 16)
            assert chunk, "the browser has gone"
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(message))

    def open(self, url: str) -> None:
        """Goes to a page and waits until it is loaded; forgets earlier events."""
        self.events.clear()
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=url)
        while self.run("document.readyState + location.protocol") != "completefile:":
            time.sleep(0.02)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def noise(self) -> list[str]:
        """What went to the console, and what was requested other than the page itself."""
        found = []
        for event in self.events:
            kind, params = event.get("method"), event.get("params", {})
            if kind in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.append(json.dumps(params)[:500])
            url = params.get("request", {}).get("url", "") if kind == "Network.requestWillBeSent" else ""
            if url and params.get("type") != "Document":
                found.append(url[:200])
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.out)
        os.close(self.into)


def _high(ends: tuple[int, int]) -> list[int]:
    """The same descriptors above 9, so that 3 and 4 are free for the browser's side."""
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("report")
    sweeps = [world.language_sweep(base / "sweep"), world.game_sweep(base / "game")]
    return reports.build(sweeps, base / "report").parent


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def shown(browser: Browser, selector: str) -> int:
    return int(
        browser.run(f"[...document.querySelectorAll({selector!r})].filter(e => e.getClientRects().length).length")
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_silently_without_a_request(browser: Browser, report: Path, name: str, scheme: str) -> None:
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(f"file://{report}/{name}.html")
    browser.run("new Promise(done => setTimeout(done, 100))")
    browser.ask("Emulation.setEmulatedMedia", features=[])
    assert browser.noise() == []
    assert browser.run("document.documentElement.classList.contains('js')")
    assert "owned" not in browser.run("document.title")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_silently_on_a_narrow_screen_and_does_not_scroll_sideways(
    browser: Browser, report: Path, name: str
) -> None:
    browser.ask("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(f"file://{report}/{name}.html")
    width = browser.run("document.documentElement.scrollWidth")
    browser.ask("Emulation.clearDeviceMetricsOverride")
    assert browser.noise() == []
    assert width <= 400


@pytest.mark.parametrize("name", ["index", "training"])
def test_the_words_of_a_chart_stay_readable_on_a_narrow_screen(browser: Browser, report: Path, name: str) -> None:
    browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(f"file://{report}/{name}.html")
    scale = "e => e.getBoundingClientRect().width / e.viewBox.baseVal.width"
    drawn = f"[...document.querySelectorAll('.panel svg')].map({scale}).filter(scale => scale > 0)"
    scales = browser.run(drawn)  # those of a metric that is not chosen have no size
    browser.ask("Emulation.clearDeviceMetricsOverride")
    assert scales
    assert min(scales) > 0.85


def test_sorting_orders_each_graders_rows_by_the_full_value_with_blanks_last_and_is_announced(
    browser: Browser, report: Path
) -> None:
    browser.open(f"file://{report}/index.html")
    column = "[...document.querySelectorAll('#table-1 thead th')].findIndex(th => th.textContent === 'win rate')"
    values = (
        "[...document.querySelector('#table-1').tBodies[0].rows]"
        f".map(r => [r.dataset.group, Number(r.cells[{column}].dataset.value)])"
    )
    click = f"document.querySelectorAll('#table-1 thead th')[{column}].querySelector('button').click()"
    graders = list(dict.fromkeys(group for group, _ in browser.run(values)))
    browser.run(click)
    found = browser.run(values)
    assert found == sorted(found, key=lambda row: (graders.index(row[0]), -row[1]))  # graders are never mixed
    assert len(graders) > 1
    assert browser.run(f"document.querySelectorAll('#table-1 thead th')[{column}].ariaSort") == "descending"
    browser.run(click)
    assert browser.run(values) == sorted(found, key=lambda row: (graders.index(row[0]), row[1]))
    assert "sort=table-1" in browser.run("location.hash")


def test_a_metric_is_chosen_for_all_blocks_of_its_board_and_goes_into_the_address(
    browser: Browser, report: Path
) -> None:
    browser.open(f"file://{report}/index.html")
    blocks = "[...document.querySelectorAll('.views[data-board=\"alpaca-eval\"]')]"
    seen = (
        f"{blocks}.map(b => [...b.children].filter(c => c.dataset.view && !c.hidden).map(c => c.dataset.view).join())"
    )
    lead = "length-controlled win rate"
    assert browser.run(seen) == [lead, lead, lead, "win rate"]  # its curve has no controlled win rate
    browser.run(f"[...{blocks}[1].querySelectorAll('.tabs button')].at(-1).click()")
    assert browser.run(seen) == ["discrete win rate"] * 4
    assert browser.run("document.querySelectorAll('.tabs button[aria-pressed=true]').length") > 4
    other = "document.querySelector('.views[data-board=\"arena-hard\"] .view:not([hidden])').dataset.view"
    assert browser.run(other) == "win rate"
    address = browser.run("location.href")
    browser.open(address)
    assert browser.run(seen) == ["discrete win rate"] * 4
    assert browser.noise() == []


def test_the_axis_of_cost_is_chosen_for_all_boards_and_goes_into_the_address(browser: Browser, report: Path) -> None:
    browser.open(f"file://{report}/cost.html")
    blocks = "[...document.querySelectorAll('.views[data-board=\"cost axis\"]')]"
    seen = (
        f"{blocks}.map(b => [...b.children].filter(c => c.dataset.view && !c.hidden).map(c => c.dataset.view).join())"
    )
    offered = f"[...{blocks}[0].querySelectorAll('.tabs button')].map(b => b.textContent)"
    assert browser.run(offered) == ["samples", "judge queries", "optimiser steps", "sampled tokens", "seconds"]
    assert browser.run(f"{blocks}[0].querySelector('.tabs').ariaLabel") == "Cost"
    boards = browser.run(f"{blocks}.length")
    assert boards > 1
    assert browser.run(seen) == ["samples"] * boards
    browser.run(f"[...{blocks}[1].querySelectorAll('.tabs button')].at(-1).click()")
    assert browser.run(seen) == ["seconds"] * boards
    browser.open(browser.run("location.href"))
    assert browser.run(seen) == ["seconds"] * boards
    assert browser.noise() == []


def test_a_policy_stands_at_equal_cost_beside_its_score_at_the_end(browser: Browser, report: Path) -> None:
    """An iteration of ipo-md asks 2,112 questions and of the others 2,816: its 6,336 pay for two of theirs."""
    browser.open(f"file://{report}/cost.html")
    heads = browser.run("[...document.querySelectorAll('#equal-cost-1 thead th')].map(th => th.textContent)")
    at, iteration = heads.index("trainer"), [i for i, head in enumerate(heads) if head == "iteration"]
    rows = browser.run(
        "[...document.querySelectorAll('#equal-cost-1 tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    read = {(row[at], *(row[i] for i in iteration)) for row in rows}
    assert read == {(t, "3", "3" if t == "ipo-md" else "2") for t in ("onpo", "inpo", "ipo-md", "dpo", "slic")}


def test_the_leaderboard_filter_leaves_one_board(browser: Browser, report: Path) -> None:
    browser.open(f"file://{report}/index.html#matrix?leaderboard=mt-bench")
    names = (
        "[...new Set([...document.querySelectorAll('.board h3')].filter(e => e.offsetParent).map(e => e.textContent))]"
    )
    assert browser.run(names) == ["mt-bench"]


def test_a_header_can_be_reached_and_pressed_by_keyboard(browser: Browser, report: Path) -> None:
    browser.open(f"file://{report}/index.html")
    browser.run("document.querySelector('#table-1 thead button').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    assert browser.run("document.querySelector('#table-1 thead th').ariaSort") == "ascending"


def test_a_filter_hides_other_rows_keeps_controls_and_goes_into_the_address(browser: Browser, report: Path) -> None:
    browser.open(f"file://{report}/index.html")
    before = shown(browser, "#table-1 tbody tr")
    browser.run(
        "(s => { s.value = 'onpo'; s.dispatchEvent(new Event('change')); })(document.querySelector('[name=trainer]'))"
    )
    rows = "[...document.querySelectorAll('#table-1 tbody tr:not(.off)')]"
    assert set(browser.run(f"{rows}.map(row => row.dataset.trainer || 'control')")) == {"control", "onpo"}
    assert shown(browser, "#table-1 tbody tr") < before
    assert browser.run("location.hash").endswith("?trainer=onpo")
    assert browser.noise() == []


def test_a_permalink_restores_filter_sort_and_place(browser: Browser, report: Path) -> None:
    browser.open(f"file://{report}/index.html#curves?judge=llm&sort=table-1.2.descending")
    assert browser.run("document.querySelector('[name=judge]').value") == "llm"
    assert browser.run("document.querySelectorAll('#table-1 thead th')[2].ariaSort") == "descending"
    judges = "[...new Set([...document.querySelectorAll('.panel:not(.off)')].map(p => p.dataset.judge))]"
    assert browser.run(judges) == ["llm"]
    assert abs(browser.run("document.querySelector('#curves').getBoundingClientRect().top")) < 200


@pytest.mark.parametrize(
    "state", ["sort=nothing.9.up", "judge=nobody", "sort=table-1.999.descending", "%E0%A4%A", "sort=__proto__"]
)
def test_a_broken_permalink_does_no_harm(browser: Browser, report: Path, state: str) -> None:
    browser.open(f"file://{report}/index.html#curves?{state}")
    assert browser.noise() == []
    assert shown(browser, "#table-1 tbody tr") > 10


def test_the_theme_follows_the_system_and_the_toggle_overrides_it(browser: Browser, report: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.open(f"file://{report}/index.html")
    browser.run("(() => { try { localStorage.clear() } catch {} })()")
    colours = []
    for scheme in ("light", "dark"):
        browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(f"file://{report}/index.html")
        colours.append(browser.run(paper))
    assert colours[0] != colours[1]
    browser.run("document.getElementById('theme').click()")
    assert browser.run(paper) == colours[0]
    browser.run("document.getElementById('theme').click()")
    assert browser.run(paper) == colours[1]
    browser.run("(() => { try { localStorage.clear() } catch {} })()")
    browser.ask("Emulation.setEmulatedMedia", features=[])


def test_a_table_downloads_as_csv_with_full_values(browser: Browser, report: Path, tmp_path: Path) -> None:
    browser.ask("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.open(f"file://{report}/index.html")
    browser.run("document.querySelector('#board-1 button.csv').click()")
    file, limit = tmp_path / "head-to-head.csv", time.monotonic() + 20
    while not file.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    header, first = file.read_text(encoding="utf-8").splitlines()[:2]
    assert "win rate" in header
    assert browser.run("document.querySelector('#table-1 td.lead').dataset.value") in first
    assert browser.noise() == []


def test_samples_filter_by_outcome_and_keys_walk_through_them(browser: Browser, report: Path) -> None:
    browser.open(f"file://{report}/samples.html")
    before = shown(browser, ".sample")
    browser.run(
        "(s => { s.value = 'failed'; s.dispatchEvent(new Event('change')); })(document.querySelector('[name=outcome]'))"
    )
    assert 0 < shown(browser, ".sample") < before
    places = []
    for key in "jjk":
        browser.run(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: {key!r}, bubbles: true}}))")
        places.append(browser.run("document.querySelector('.sample.at').id"))
    assert places[0] == places[2] != places[1]
    assert browser.noise() == []


def test_without_script_every_table_can_be_read(browser: Browser, report: Path) -> None:
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(f"file://{report}/index.html")
    rows, filters = shown(browser, "#table-1 tbody tr"), shown(browser, ".filters")
    browser.ask("Emulation.setScriptExecutionDisabled", value=False)
    assert rows > 10
    assert filters == 0
