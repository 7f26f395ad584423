"""Carries out a plan, and notes what was done and when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from time import monotonic
from typing import Final

from ..server import Server
from .clock import Clock
from .history import Journal
from .plan import EVERYBODY, Fault
from .seats import Seat

__all__ = ["Nemesis"]

_PATIENCE: Final = 20.0


class Nemesis:
    """Does harm, and puts it right again.

    Args:
        server: The server.
        clock: Its clock.
        seats: The places of the workers.
        journal: Where to write what was done.
    """

    def __init__(
        self, server: Server, clock: Clock, seats: Sequence[Seat], journal: Journal
    ) -> None:
        self._server = server
        self._clock = clock
        self._seats = seats
        self._journal = journal
        self._acting: list[_Act] = []
        self.done: dict[str, int] = {}
        """How many faults of each kind have begun."""
        self.left_out: dict[str, int] = {}

    @property
    def next_end(self) -> float | None:
        """When a fault has to end."""
        return min((act.until for act in self._acting), default=None)

    def begin(self, fault: Fault) -> None:
        """Do one harm."""
        if not self._can(fault):
            self.left_out[fault.kind] = self.left_out.get(fault.kind, 0) + 1
            return
        self._clear(fault)
        target = self._seats[fault.target].worker if fault.target >= 0 else fault.where
        began = monotonic()
        deed = _DEEDS[fault.kind](self, fault)
        deed.__enter__()
        self._acting.append(_Act(fault, target, deed, began, monotonic() + fault.seconds))
        self.done[fault.kind] = self.done.get(fault.kind, 0) + 1

    def _can(self, fault: Fault) -> bool:
        if fault.kind == "unplug":
            return self._seat(fault).cable is not None
        return fault.kind != "clock" or self._clock.settable

    def _clear(self, fault: Fault) -> None:
        """End what is at the same target: on a busy machine all comes late, and at once."""
        for act in list(self._acting):
            if act.fault.target == fault.target or EVERYBODY in (act.fault.target, fault.target):
                self._end(act)

    def end_due(self) -> None:
        """Put right what is due."""
        for act in [each for each in self._acting if each.until <= monotonic()]:
            self._end(act)

    def end_all(self) -> None:
        """Put everything right."""
        for act in list(self._acting):
            self._end(act)

    def _end(self, act: _Act) -> None:
        self._acting.remove(act)
        act.deed.__exit__(None, None, None)
        self._journal.write(
            window={
                "kind": act.fault.kind,
                "target": act.target,
                "began": act.began,
                "ended": monotonic(),
                "detail": {**act.fault.detail, "number": act.fault.number},
            }
        )

    def _seat(self, fault: Fault) -> Seat:
        return self._seats[fault.target]

    # What it does to a worker

    @contextmanager
    def kill(self, fault: Fault) -> Iterator[None]:
        """SIGKILL; a new one comes."""
        self._seat(fault).kill()
        yield
        self._seat(fault).start()

    @contextmanager
    def stop(self, fault: Fault) -> Iterator[None]:
        """SIGSTOP, SIGCONT."""
        self._seat(fault).process.stop()
        yield
        self._seat(fault).process.go_on()

    # What it does to a link

    @contextmanager
    def drop(self, fault: Fault) -> Iterator[None]:
        """Cut all connections that there are."""
        proxy = self._seat(fault).proxy
        if fault.detail["how"] == "close":
            proxy.close_all()
        else:
            proxy.reset_all()
        yield

    @contextmanager
    def half_open(self, fault: Fault) -> Iterator[None]:
        """Have connections die without anybody being told, until they are tried again."""
        proxy = self._seat(fault).proxy
        armed = [
            proxy.cut_after_bytes(0, times=None, how="stall"),
            proxy.cut_after_bytes(0, direction="requests", times=None, how="stall"),
        ]
        yield
        for each in armed:
            proxy.disarm(each)

    @contextmanager
    def delay(self, fault: Fault) -> Iterator[None]:
        """Have everything come late."""
        proxy = self._seat(fault).proxy
        proxy.delay(requests=fault.detail["requests"], replies=fault.detail["replies"])
        yield
        proxy.heal()

    @contextmanager
    def lose(self, fault: Fault) -> Iterator[None]:
        """Lose some replies or requests, and the connections."""
        proxy = self._seat(fault).proxy
        lose = proxy.lose_reply if fault.kind == "lose-reply" else proxy.lose_request
        armed = lose(fault.detail["match"], times=fault.detail["times"], how=fault.detail["how"])
        yield
        proxy.disarm(armed)

    @contextmanager
    def tear(self, fault: Fault) -> Iterator[None]:
        """Break connections in the middle of a message."""
        proxy, detail = self._seat(fault).proxy, fault.detail
        armed = proxy.cut_after_bytes(
            detail["after"],
            direction=detail["direction"],
            times=detail["times"],
            how=detail["how"],
        )
        yield
        proxy.disarm(armed)

    @contextmanager
    def partition(self, fault: Fault) -> Iterator[None]:
        """Hold what is sent, one way or both."""
        proxy, blocked = self._seat(fault).proxy, fault.detail["blocked"]
        proxy.partition(requests=blocked != "replies", replies=blocked != "requests")
        yield
        proxy.heal()

    @contextmanager
    def unplug(self, fault: Fault) -> Iterator[None]:
        """Pull out the cable to its network."""
        cable = self._seat(fault).cable
        assert cable is not None
        cable.pull()
        yield
        cable.plug_in()

    @contextmanager
    def blackout(self, fault: Fault) -> Iterator[None]:
        """The same for everybody."""
        for seat in self._seats:
            seat.proxy.partition()
        yield
        for seat in self._seats:
            seat.proxy.heal()

    # What it does to the server

    @contextmanager
    def pause(self, fault: Fault) -> Iterator[None]:
        """SIGSTOP, SIGCONT."""
        self._server.suspend()
        yield
        self._server.resume()

    @contextmanager
    def sleep(self, fault: Fault) -> Iterator[None]:
        """Keep it busy."""
        command = f"DEBUG SLEEP {fault.seconds:.3f}"
        asking = threading.Thread(target=self._ask, args=(command,), daemon=True)
        asking.start()
        yield
        asking.join(_PATIENCE)

    @contextmanager
    def client_pause(self, fault: Fault) -> Iterator[None]:
        """Have it keep all waiting."""
        self._ask(f"CLIENT PAUSE {int(fault.seconds * 1000)} {fault.detail['what']}")
        yield
        self._ask("CLIENT UNPAUSE")

    @contextmanager
    def restart(self, fault: Fault) -> Iterator[None]:
        """SIGKILL, and a new process with the same data."""
        self._server.kill()
        yield
        self._server.start()

    @contextmanager
    def set_clock(self, fault: Fault) -> Iterator[None]:
        """Set its clock forward or back."""
        began = monotonic()
        self._clock.jump(fault.detail["jump"])
        with suppress(OSError):  # then it was a whole machine that stood still
            self._clock.await_shown(self._server)
        jump = {"began": began, "ended": monotonic(), "seconds": fault.detail["jump"]}
        self._journal.write(jump=jump)
        yield

    def _ask(self, command: str) -> None:
        with suppress(OSError):
            self._server.ask(command, timeout=_PATIENCE)


class _Act:
    """A fault that is in force."""

    def __init__(
        self,
        fault: Fault,
        target: str,
        deed: AbstractContextManager[None],
        began: float,
        until: float,
    ) -> None:
        self.fault = fault
        self.target = target
        self.deed = deed
        self.began = began
        self.until = until


_DEEDS: Final[dict[str, Callable[[Nemesis, Fault], AbstractContextManager[None]]]] = {
    "kill": Nemesis.kill,
    "stop": Nemesis.stop,
    "drop": Nemesis.drop,
    "half-open": Nemesis.half_open,
    "delay": Nemesis.delay,
    "lose-reply": Nemesis.lose,
    "lose-request": Nemesis.lose,
    "tear": Nemesis.tear,
    "partition": Nemesis.partition,
    "unplug": Nemesis.unplug,
    "blackout": Nemesis.blackout,
    "pause": Nemesis.pause,
    "sleep": Nemesis.sleep,
    "client-pause": Nemesis.client_pause,
    "restart": Nemesis.restart,
    "clock": Nemesis.set_clock,
}
