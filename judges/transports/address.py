"""Where an endpoint is and with which key it is asked."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

OPENAI = "https://api.openai.com/v1"
NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
SECRET = 8
"""Characters that make a key; shorter ones, as of local servers, are ordinary words."""


def check_url(url: str, option: str = "base_url") -> None:
    """Raise ValueError for a URL that no endpoint has or that may carry a secret, without telling it."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # checked as it is read
    except ValueError:  # whose words show what it cannot read
        raise ValueError(f"{option} has a wrong host or port; write it as http://localhost:8000/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{option} must begin with http:// or https:// and name a host")
    if parts.username or parts.password or set("?#") & set(url):
        raise ValueError(f"{option} must carry no user, password, query or fragment; the key comes from api_key_env")


def check_key_name(api_key_env: str) -> None:
    """Raise ValueError for what is no name of an environment variable, without telling it: it may be the key."""
    if not NAME.fullmatch(api_key_env):
        raise ValueError("api_key_env must be the name of an environment variable, in capitals, never a key itself")


def key_of(api_key_env: str) -> str:
    """The key without space around it, such as a file's last newline; empty where there is none."""
    return os.environ.get(api_key_env, "").strip()


def is_openai(url: str | None) -> bool:
    """Whether the host is OpenAI's own, as it is without a URL."""
    return url is None or urlsplit(url).hostname == urlsplit(OPENAI).hostname
