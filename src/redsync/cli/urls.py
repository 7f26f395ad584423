"""URLs of servers, in which there may be passwords: none of it is told."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

import click
import redis

__all__ = ["open_client", "without_urls"]

_LIKE_A_URL: Final = re.compile(r"\b([a-z][a-z0-9+.-]*:/).*", re.IGNORECASE | re.DOTALL)
"""To the end, as a password may have anything in it if somebody forgets to escape it."""


def open_client(url: str, hint: str, **options: Any) -> redis.Redis:
    """A client that has not connected yet.

    Args:
        url: Where the server is.
        hint: Which parameter the URL comes from.
        options: For the client, where the URL says nothing of them.

    Raises:
        click.BadParameter: The URL makes no sense.
    """
    try:
        _refuse_slips(url)
        client = redis.Redis.from_url(url, **options)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # does not connect
    except (ValueError, TypeError):
        # What these say may be a part of the password: the port, to somebody who finds a slash.
        raise click.BadParameter(
            "this is no URL of a server. It reads like redis://user:password@host:6379/0?option=1,"
            " with %XX in place of special characters in user and password, and options of"
            " redis-py. It is not repeated here, as there may be a password in it",
            param_hint=hint,
        ) from None
    return client


def _refuse_slips(url: str) -> None:
    """Refuse what was most likely not escaped: redis-py would take a part of the password for the
    host or the path, and name that in its errors.
    """
    parts = urlsplit(url)
    odd = any("=" not in each for each in parts.query.split("&") if each)
    if parts.scheme == "unix":
        cut = bool(parts.netloc) and "@" not in parts.netloc
    else:
        cut = "@" in parts.path
    if odd or cut or parts.fragment:
        raise ValueError("a character is not escaped")


def without_urls(text: str) -> str:
    """A message about what somebody has typed, where nothing but the scheme is left of a URL."""
    return _LIKE_A_URL.sub(r"\1…", text)
