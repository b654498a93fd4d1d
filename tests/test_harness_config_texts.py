"""Texts that a config cannot hold, and plug-ins that break: one short message with the file and the place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import install

from harness import registry
from harness.config import Config, ConfigError, load_config
from harness.planning.plan import make_plan
from harness.prompts import read_prompts
from judges.plugins import entries

CONFIG = """\
name: small
policy: {game: cyc3}
matrix: {trainer: [omd], judge: [game]}
leaderboards: [duality-gap]
"""


def read(folder: Path, text: str | bytes, *settings: str) -> Config:
    path = folder / "sweep.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, settings)


def refusal(folder: Path, text: str, *settings: str) -> str:
    """The message with which planning ends, without the folder; it is short."""
    with pytest.raises(ValueError, match=r".") as refused:
        make_plan(read(folder, text, *settings))
    assert not isinstance(refused.value, UnicodeError)
    message = str(refused.value).replace(str(folder), "")
    assert len(message) < 300
    return message


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("iterations: !!timestamp x", [":5", "date", "in quotes"]),
        ("prompts: 2024-01-01", [":5", "'2024-01-01' is read as a date", "in quotes"]),
        ("prompts: !!binary eA==", [":5", "binary"]),
        ("prompts: !!python/object:os.system x", [":5", "python/object:os.system"]),
        ("iterations: !!int x", [":5", "'x' cannot be read as int"]),
        ("iterations: " + "9" * 5000, [":5", "cannot be read as int"]),
        ("iterations: 99999999999999999999", [":5", "whole numbers end at 2^63"]),
        ("name: other", ["sweep.yaml:5: the key 'name' is written twice, first at", "sweep.yaml:1"]),
        ("training: {lr: 0.1, lr: 0.2}", [":5", "'lr' is written twice"]),
        ('prompts: "a\\0b"', [":5", "NUL"]),
        ('prompts: "a\\ud800"', [":5", "half a character"]),
        ("training: &a [*a]", [":5", "an alias stands for a value that holds it"]),
        ("training: " + "[" * 60 + "]" * 60, ["nested more than 50 levels"]),
        ("training: " + "[" * 5000, ["nested more than 50 levels"]),
        ("training: {lr: .nan}", [":5", "training.lr", "nan"]),
        ("training: {lr: .inf}", [":5", "training.lr", "inf"]),
        ("x" * 900 + ": 1", ["unknown key", "..."]),
        ("pairs: {label: " + "x" * 5000 + "}", [":5", "pairs.label", "..."]),
    ],
)
def test_a_value_that_no_config_holds_is_refused_by_its_line(tmp_path: Path, line: str, parts: list[str]) -> None:
    message = refusal(tmp_path, f"{CONFIG}{line}\n")
    assert all(part in message for part in ("sweep.yaml", *parts)), message


def test_aliases_that_unfold_to_millions_of_values_are_refused_before_they_do(tmp_path: Path) -> None:
    bomb = "exclude: [&a [x, x, x, x, x, x, x, x, x, x]"
    for a, b in zip("abcdefg", "bcdefgh", strict=True):
        bomb += f", &{b} [{', '.join([f'*{a}'] * 10)}]"
    assert "more than 100,000 values" in refusal(tmp_path, f"{CONFIG}{bomb}]\n")


def test_a_key_that_a_merge_brings_is_not_there_twice(tmp_path: Path) -> None:
    config = read(tmp_path, f"{CONFIG}exclude: [&a {{seed: 1}}, {{<<: *a, seed: 2}}, {{<<: *a}}]\n")
    assert config.exclude == ({"seed": 1}, {"seed": 2}, {"seed": 1})


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf" + CONFIG.encode()).name == "small"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "split": "train"}\n{"prompt": "b", "split": "heldout"}\n')
    assert [r.prompt for r in read_prompts(str(prompts), 0)] == ["a", "b"]
    assert read(tmp_path, CONFIG, "name=\ufeffother").name == "other"


@pytest.mark.parametrize("policy", ["~nobody-is-called-so/model", "p" * 5000, "p/" * 2500, "/" + "p" * 5000])
def test_a_policy_that_no_file_system_has_is_no_such_folder(tmp_path: Path, policy: str) -> None:
    message = refusal(tmp_path, CONFIG.replace("{game: cyc3}", policy).replace("duality-gap", "head-to-head"))
    assert "sweep.yaml" in message
    assert policy[:9] in message


@pytest.mark.parametrize("option", ["panel", "prompts", "game"])
def test_a_file_with_a_name_that_is_too_long_is_refused(tmp_path: Path, option: str) -> None:
    long = "p" * 5000
    text = CONFIG.replace("cyc3", long) if option == "game" else CONFIG
    if option == "panel":
        (tmp_path / "model").mkdir()
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (tmp_path / "model" / name).write_text("{}")
        text = CONFIG.replace("{game: cyc3}", "./model").replace("[game]", f"[{{name: panel, panel: {long}}}]")
        text = text.replace("duality-gap", "head-to-head")
    if option == "prompts":
        with pytest.raises(ValueError, match="no prompts file"):
            read_prompts(long, 0)
        return
    assert "sweep.yaml" in refusal(tmp_path, text)


def test_without_a_home_a_path_from_it_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda text: text)
    assert read(tmp_path, CONFIG.replace("{game: cyc3}", "~/model")).policy == ("~/model",)


def test_a_setting_of_thousands_of_characters_is_shown_in_part(tmp_path: Path) -> None:
    for setting in ("x" * 5000, "a." * 3000 + "b=1", "name=" + "[" * 5000, "name=" + "x" * 5000, "=" * 4000):
        assert "..." in refusal(tmp_path, CONFIG, setting)


# --- plug-ins ----------------------------------------------------------------------------------------------------

MODULE = """
from dataclasses import dataclass
from trainers import OMD

@dataclass(frozen=True, kw_only=True)
class Broken(OMD):
    name = "broken"
    way: str = "KeyError"
    count: int | None = None

    def __post_init__(self):
        super().__post_init__()
        raise __builtins__[self.way]("the reason " + "x" * 1000)
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    site = install(tmp_path / "site", "broken-plugin", "[nashbench.trainers]\nbroken = broken_plugin:Broken\n", MODULE)
    monkeypatch.syspath_prepend(str(site))
    for cached in (entries, registry.names):
        cached.cache_clear()
    yield
    for cached in (entries, registry.names):
        cached.cache_clear()
    sys.modules.pop("broken_plugin", None)


@pytest.mark.parametrize("way", ["KeyError", "TypeError", "ZeroDivisionError", "RecursionError"])
def test_a_plug_in_that_breaks_while_it_is_made_is_named_as_a_bug_of_its_own(
    tmp_path: Path, broken: None, way: str
) -> None:
    message = refusal(tmp_path, CONFIG.replace("[omd]", f"[{{name: broken, way: {way}}}]"))
    for part in ("sweep.yaml:3", "'broken'", "broken_plugin.Broken", way, "the reason", "a bug in it"):
        assert part in message


def test_what_a_plug_in_refuses_by_a_value_error_is_the_users_and_short(tmp_path: Path, broken: None) -> None:
    message = refusal(tmp_path, CONFIG.replace("[omd]", "[{name: broken, way: ValueError}]"))
    assert "sweep.yaml:3: matrix.trainer: the reason" in message
    assert "bug" not in message


@pytest.mark.parametrize(("value", "shown"), [("many", "'many'"), ("true", "True"), ("1.5", "1.5")])
def test_an_option_of_another_type_is_the_users(tmp_path: Path, broken: None, value: str, shown: str) -> None:
    message = refusal(tmp_path, CONFIG.replace("[omd]", f"[{{name: broken, count: {value}}}]"))
    assert f"count is {shown}; it must be a whole number" in message


def test_a_config_error_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)
