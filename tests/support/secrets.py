"""A user name and a password that can be recognised, and all that a program may tell of them."""

from __future__ import annotations

import contextlib
import logging
import traceback
import warnings
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

__all__ = ["PASSWORD", "USER", "Ear", "listening", "secrets_in", "told_by"]

# Put together, as a traceback shows lines of source.
_USER_PARTS: Final = ("zu" + "qx", "zu" + "kw")
_PARTS: Final = ("zp" + "qx", "zp" + "jv", "zp" + "kw")

USER: Final = "@".join(_USER_PARTS)
PASSWORD: Final = f"{_PARTS[0]}/{_PARTS[1]}#{_PARTS[2]}"
"""With what has to be escaped in a URL."""


def secrets_in(text: str) -> list[str]:
    """The parts of both that are in a text, escaped or not."""
    return [part for part in (*_USER_PARTS, *_PARTS) if part in text]


def url_with(scheme: str, place: str, user: str = USER, password: str = PASSWORD) -> str:
    """A URL with both of them in it, escaped."""
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{place}"


class Ear(logging.Handler):
    """Collects what is logged, and whatever else may be told."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(self.format(record))
        self.heard.append(repr(vars(record)))

    def take(self, *objects: object) -> None:
        """Note how objects show themselves, and if they are exceptions, all that there is of it."""
        for each in objects:
            self.heard += told_by(each)

    def secrets(self) -> list[str]:
        """What has been told."""
        return [each for each in self.heard if secrets_in(each)]


def told_by(each: object) -> list[str]:
    """All that an object tells: as text, in tables of attributes, and in a traceback."""
    told = [str(each), repr(each)]
    while isinstance(each, BaseException):
        told += [repr(each.args), repr(vars(each)), *traceback.format_exception(each)]
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return told


@contextlib.contextmanager
def listening() -> Iterator[Ear]:
    """Hear all that loggers of redsync and warnings say."""
    ear, log = Ear(), logging.getLogger("redsync")
    level = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(ear)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield ear
        ear.take(*(each.message for each in caught))
    finally:
        log.removeHandler(ear)
        log.setLevel(level)
