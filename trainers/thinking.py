"""Taking a reasoning model's thinking out of its answer."""

from __future__ import annotations

import re

TAG = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)


def strip_thinking(text: str) -> str:
    """The answer without its thinking blocks, trimmed; a text without any tag comes back as it is.

    A block goes from `<think>` or `<thinking>` to the first closing tag; blocks do not nest. Without a closing tag
    everything after the opening one is thinking (the answer was cut off). A closing tag alone ends a block that the
    chat template opened: everything before it is thinking. An answer that quotes these tags is cut in the same way.
    """
    kept: list[str] = []
    thinking, end = False, 0
    for tag in TAG.finditer(text):
        closing = bool(tag[1])
        if closing and not thinking:
            kept.clear()
        elif not closing and not thinking:
            kept.append(text[end : tag.start()])
        thinking, end = not closing, tag.end()
    if end == 0:
        return text
    return "".join([*kept, "" if thinking else text[end:]]).strip()
