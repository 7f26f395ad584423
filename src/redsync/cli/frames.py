"""Finds the borders of messages in a stream of Redis' protocol, RESP2 or RESP3."""

from __future__ import annotations

_SCALARS = b"+-:_,#("
_BULKS = b"$!="
_LISTS = b"*~>"
_MAPS = b"%|"
_MARKERS = _SCALARS + _BULKS + _LISTS + _MAPS


class Frames:
    """Splits a stream into top-level messages, whatever the chunks are.

    Args:
        inline: Whether a line of text is a message too, as it is among requests.
    """

    def __init__(self, *, inline: bool) -> None:
        self._inline = inline
        self._missing = 1  # elements that the current message still needs
        self._payload = 0  # bytes that the current bulk string still needs
        self._line = b""  # the incomplete header line

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Return pairs of a slice of one message and whether the message ends there.

        Raises ValueError if this is not RESP.
        """
        start = pos = 0
        pieces: list[tuple[bytes, bool]] = []
        while pos < len(data):
            pos = self._skip_payload(data, pos) if self._payload else self._skip_line(data, pos)
            if self._missing == 0:
                pieces.append((data[start:pos], True))
                start = pos
                self._missing = 1
        if start < len(data):
            pieces.append((data[start:], False))
        return pieces

    def _skip_payload(self, data: bytes, pos: int) -> int:
        step = min(self._payload, len(data) - pos)
        self._payload -= step
        if not self._payload:
            self._missing -= 1
        return pos + step

    def _skip_line(self, data: bytes, pos: int) -> int:
        end = data.find(b"\n", pos) + 1
        self._line += data[pos : end or len(data)]
        if self._line[0] not in _MARKERS and not (
            self._inline and (self._line[:1].isalpha() or self._line[0] in b"\r\n")
        ):
            raise ValueError("not RESP")
        if not end:
            return len(data)
        line, self._line = self._line, b""
        self._count(line)
        return end

    def _count(self, line: bytes) -> None:
        """Take a header line into account."""
        kind = line[0]
        if kind in _BULKS and int(line[1:]) >= 0:
            self._payload = int(line[1:]) + 2
        elif kind in _LISTS:
            self._missing += max(int(line[1:]), 0) - 1
        elif kind in _MAPS:
            # An attribute (|) is followed by the element that it describes.
            self._missing += 2 * int(line[1:]) - (kind != ord("|"))
        else:  # a scalar, a null, or an inline command
            self._missing -= 1


def request_line(frame: bytes) -> bytes:
    """Write a request as ``NAME arg arg``, the name in upper case."""
    args = _array(frame) if frame.startswith(b"*") else frame.split()
    return b" ".join([args[0].upper(), *args[1:]]) if args else b""


def _array(frame: bytes) -> list[bytes]:
    args, pos = [], frame.index(b"\n") + 1
    while pos < len(frame):
        end = frame.index(b"\n", pos)
        size = int(frame[pos + 1 : end])
        args.append(frame[end + 1 : end + 1 + size])
        pos = end + 1 + size + 2
    return args
