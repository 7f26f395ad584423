"""RESP2, the wire format: commands to bytes, bytes to replies.

Our connections always speak RESP2, whatever the user's client speaks: its replies are the same
for every server version, and a parser for it is short. redis-py's own parsers are not used on the
hot path, as they cost several times as much (docs/architecture.md).
"""

from __future__ import annotations

from typing import Final, TypeAlias, Union

from redis import exceptions

Reply: TypeAlias = Union[int, bytes, "list[Reply]", exceptions.RedisError, None]
"""What a server answers. An error is a value here: it may stand for one command of many."""

Argument: TypeAlias = bytes | str | int

_ERRORS: dict[str, type[exceptions.RedisError]] = {
    "ASK": exceptions.AskError,
    "CLUSTERDOWN": exceptions.ClusterDownError,
    "EXECABORT": exceptions.ExecAbortError,
    "LOADING": exceptions.BusyLoadingError,
    "MASTERDOWN": exceptions.MasterDownError,
    "MOVED": exceptions.MovedError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "NOSCRIPT": exceptions.NoScriptError,
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
    "TRYAGAIN": exceptions.TryAgainError,
    "WRONGPASS": exceptions.AuthenticationError,
}


def pack(*arguments: Argument) -> bytes:
    """One command."""
    return b"*%d\r\n" % len(arguments) + pack_arguments(arguments)


def pack_arguments(arguments: tuple[Argument, ...]) -> bytes:
    """The arguments of a command, without the header that counts them."""
    parts: list[bytes] = []
    add = parts.append
    for argument in arguments:
        # Not str(): that of a name which is a member of an enumeration is something else.
        if isinstance(argument, str):
            data = argument.encode()
        else:
            data = argument if isinstance(argument, bytes) else b"%d" % argument
        length = len(data)
        add(_LENGTHS[length] if length < 64 else b"$%d" % length)
        add(data)
    add(b"")
    return b"\r\n".join(parts)


# Formatting a number takes as long as all the rest.
_LENGTHS: Final = [b"$%d" % length for length in range(64)]


def microseconds(reply: Reply) -> int:
    """The answer to TIME."""
    if isinstance(reply, exceptions.RedisError):
        raise reply
    assert isinstance(reply, list)
    seconds, micros = (int(each) for each in reply if isinstance(each, bytes))
    return seconds * 1_000_000 + micros


def error(text: str) -> exceptions.RedisError:
    """The exception that redis-py has for an error reply."""
    code, _, rest = text.partition(" ")
    kind = _ERRORS.get(code)
    return kind(rest) if kind else exceptions.ResponseError(text.removeprefix("ERR "))


class Parser:
    """Replies out of a stream of bytes, however it is cut."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._lacking = 0
        """How many bytes have to come before it is worth looking again."""

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that `data` completes."""
        if self._pieces:
            self._pieces.append(data)
            self._lacking -= len(data)
            if self._lacking > 0:  # a string of some megabytes is not joined for each packet
                return []
            data = b"".join(self._pieces)
        replies: list[Reply] = []
        position = 0
        try:
            while position < len(data):
                reply, position = _parse(data, position)
                replies.append(reply)
        except _Incomplete as incomplete:
            self._lacking = incomplete.lacking
        self._pieces = [data[position:]] if position < len(data) else []
        return replies


class _Incomplete(Exception):
    """The reply goes on in bytes that have not come yet, at least so many."""

    def __init__(self, lacking: int) -> None:
        super().__init__()
        self.lacking = lacking


def _parse(data: bytes, position: int) -> tuple[Reply, int]:
    end = data.find(b"\r\n", position)
    if end < 0:
        raise _Incomplete(1)
    kind, line, after = data[position], data[position + 1 : end], end + 2
    if kind == 36:  # $: a string of known length
        length = int(line)
        if length < 0:
            return None, after
        stop = after + length
        if len(data) < stop + 2:
            raise _Incomplete(stop + 2 - len(data))
        return data[after:stop], stop + 2
    if kind == 58:  # :
        return int(line), after
    if kind == 43:  # +
        return line, after
    if kind == 42:  # *: an array
        if line == b"-1":
            return None, after
        items: list[Reply] = []
        for _ in range(int(line)):
            item, after = _parse(data, after)
            items.append(item)
        return items, after
    if kind == 45:  # -
        return error(line.decode(errors="replace")), after
    raise exceptions.InvalidResponse(f"not a RESP2 reply: {data[position : end + 2]!r}")
