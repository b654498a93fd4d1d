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


def with_template_date(config: Config, store: Store, *, keep: bool) -> Config:
    """The config with the date of its store: the day on which this store first rendered such a template.

    Args:
        keep: whether a new date is written down, as a sweep does and a plan does not.

    Raises:
        OSError: it cannot be written.
    """
    policies = [policy for policy in config.policy if isinstance(policy, str) and policy != "pocket"]
    if config.template_date or not any(map(_may_write_the_date, policies)):
        return config
    return config.model_copy(update={"template_date": _stores_date(store.root / FILE, keep)})


def _stores_date(path: Path, keep: bool) -> str:
    today = datetime.date.today().isoformat()
    if keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(descriptor, "w") as file:
                file.write(today)
    with contextlib.suppress(ValueError):
        return datetime.date.fromisoformat(read_text(path).strip()).isoformat()
    return today


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
