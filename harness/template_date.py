"""The day that chat templates write: one for a store, so that what is added tomorrow goes on from today's.

Templates of Llama 3.2, Granite 3, SmolLM3 and others write the current date into every prompt.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from pathlib import Path

from harness.config import Config
from harness.store.artifacts import Store
from judges.reading import read_text

FILE = "template_date"


def date_for(policy: str, template_date: str | None) -> str:
    """The date for a policy's template: the given one or today's, "" where the template writes none.

    The template of a hub policy is not known before it is fetched, and is taken to write one.
    """
    if not _may_write_the_date(policy):
        return ""
    return template_date or datetime.date.today().isoformat()


def with_template_date(config: Config, store: Store) -> Config:
    """The config with the date of its store: the day on which this store first rendered such a template, or today."""
    if config.template_date or not _is_dated(config):
        return config
    return config.model_copy(update={"template_date": _stores_date(store) or datetime.date.today().isoformat()})


def keep_template_date(config: Config, store: Store) -> None:
    """Write down the date that a sweep begins with, where its store has none yet.

    Raises:
        OSError: it cannot be written.
    """
    if config.template_date and _is_dated(config) and _stores_date(store) is None:
        with contextlib.suppress(FileExistsError), (store.root / FILE).open("x") as file:
            file.write(config.template_date)


def _is_dated(config: Config) -> bool:
    policies = [policy for policy in config.policy if isinstance(policy, str) and policy != "pocket"]
    return any(map(_may_write_the_date, policies))


def _stores_date(store: Store) -> str | None:
    with contextlib.suppress(ValueError):
        return datetime.date.fromisoformat(read_text(store.root / FILE).strip()).isoformat()
    return None


def _may_write_the_date(policy: str) -> bool:
    folder = Path(policy)
    if not os.path.isdir(policy):
        return True
    with contextlib.suppress(ValueError, OSError):
        return any("strftime_now" in text for text in _templates(folder))
    return False


def _templates(folder: Path) -> list[str]:
    """The texts of a folder's chat templates, wherever transformers keeps them."""
    files = [folder / "chat_template.jinja", *sorted((folder / "additional_chat_templates").glob("*.jinja"))]
    texts = [read_text(file) for file in files if file.is_file()]
    config = folder / "tokenizer_config.json"
    return [*texts, json.dumps(json.loads(read_text(config)).get("chat_template"))] if config.is_file() else texts
