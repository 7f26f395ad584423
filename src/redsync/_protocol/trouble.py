"""Which errors pass by themselves, and what to do about the others."""

from __future__ import annotations

import re
from typing import Final

from redis import exceptions

from ..exceptions import RedsyncError

_PASSING = (
    exceptions.AskError,
    exceptions.BusyLoadingError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.WatchError,
)

_UNAUTHENTICATED: Final = "unauthenticated"
"""Some servers say so, instead of NOAUTH, of a command with more than ten parts."""

_LOGIN: Final = "give the client a password, and a user name if it is not the default one"

_TOO_OLD: Final = "the server is too old: use Redis 6.2 or newer, or Valkey"

_ADVICE = (
    (
        "NOPERM",
        "grant it with ACL SETUSER; docs/guarantees.md lists what redsync uses",
    ),
    ("ACL failure", "grant it with ACL SETUSER; docs/guarantees.md lists what redsync uses"),
    ("invalid username-password", "check the client's user name and password"),
    ("NOAUTH", _LOGIN),
    (_UNAUTHENTICATED, _LOGIN),
    ("OOM", "the server is out of memory: raise maxmemory, or let it evict other keys"),
    ("READONLY", "this server is a replica, or being replaced: point the client at the master"),
    ("LOADING", "the server is reading its data from disk: try again in a moment"),
    ("timeout is not an integer", _TOO_OLD),
    ("Unknown Redis command", _TOO_OLD),
    ("syntax error", _TOO_OLD),
    ("unknown command", "the server forbids or lacks it; without scripts use OPTIMISTIC_LOCKING"),
)


def passes(error: Exception) -> bool:
    """Whether the same command may do better in a moment. It was not executed, or it is not known
    whether it was.
    """
    if isinstance(error, exceptions.AuthenticationError):
        return False  # a ConnectionError to redis-py, but no reconnecting mends it
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError, *_PASSING)):
        return True
    text = str(error)
    # A blocked client of a server that was demoted; a failover inside of a script's run.
    return text.startswith("UNBLOCKED") or "READONLY" in text


def is_temporary(error: Exception) -> bool:
    """Whether somebody may mend it while we wait, without a change of ours."""
    # redis-py takes the code off the message of an OutOfMemoryError.
    states = ("BUSY ", "MISCONF", "NOREPLICAS", "OOM")
    mendable = isinstance(error, exceptions.OutOfMemoryError) or str(error).startswith(states)
    return mendable or passes(error)


def demoted(error: Exception) -> bool:
    """Whether the server says that it is not the master any more."""
    text = str(error)
    return (
        isinstance(error, (exceptions.ReadOnlyError, exceptions.MasterDownError))
        or text.startswith("UNBLOCKED")
        or "READONLY" in text
    )


_GARBAGE: Final = re.compile(
    r"WRONGTYPE|user_script:\d+: (attempt|bad argument|the count)|not an integer|not a valid float"
)
"""What a server says, and Lua: what a script refuses has another code."""


def is_garbage(error: Exception) -> bool:
    """Whether a key holds something else than it should: the server says so, a script cannot go on
    with it, or what it answers makes no sense.
    """
    if isinstance(error, exceptions.ResponseError):
        return _GARBAGE.search(str(error)) is not None
    senseless = isinstance(error, (ValueError, LookupError, ArithmeticError))
    return senseless and not isinstance(error, (RedsyncError, exceptions.RedisError))


def takes_fewer_arguments(reply: object) -> bool:
    """Whether a command is known to the server without its last argument only: it is older."""
    return isinstance(reply, exceptions.ResponseError) and "wrong number of arguments" in str(reply)


def advised(error: Exception) -> Exception:
    """The same error, of the same class, with the next step in its message."""
    text = str(error)
    if not isinstance(error, exceptions.RedisError) or " - redsync: " in text:
        return error
    if isinstance(error, exceptions.AskError):
        return exceptions.ResponseError(
            f"MOVED to {error.host}:{error.port} - redsync: this is a node of a cluster; hand in a"
            " RedisCluster"
        )
    code = _CODES.get(type(error), "")
    whole = f"{code} {text}" if code and not text.startswith(code) else text
    for mark, advice in _ADVICE:
        if mark in whole:
            unknown = mark == _UNAUTHENTICATED
            kind = exceptions.AuthenticationError if unknown else type(error)
            return kind(f"{whole} - redsync: {advice}")
    return error


_CODES: dict[type[Exception], str] = {
    exceptions.BusyLoadingError: "LOADING",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.AuthenticationError: "NOAUTH",
}
"""redis-py takes the code off the message and makes it a class."""
