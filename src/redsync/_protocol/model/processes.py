"""Processes that use one semaphore, and all that can happen to them.

What a process does follows `_async/pool.py` and `_async/grant.py`; it has one request at a time. A
step is a script that Redis runs, with as much of its client as nobody can tell apart from it:

* A command may be as late as it likes: before it is run nothing has happened. A deadline counts
  from before the command was sent, so its holder believes for longest if there is no delay, and
  whoever believes for less time takes the step "forgets" before.
* An answer may be late or lost: its client believes what it believed before. If it sends the
  command again, it is in `under_way`, or asks again; if not, it has forgotten.
* To die is to forget and to take no further step; to be stopped is to take none for a while. So
  deaths, restarts and lost answers are not counted.
* Commands that nobody waits for, as their sender died or goes on, are `under_way`, and may be run
  at any time, or never.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .semaphore import ANY, Meta, Record, Script, State, is_whole, nothing

IDLE, ASKS_AGAIN, WAITS, HOLDS = range(4)
"""Idle is also who waits with a request that nobody else can know of."""

ACQUIRE, SEAT, RETURN, RESIZE = range(4)
_KINDS: Final = ("acquire", "seat", "return", "resize")

_LOSSES, _FAILOVERS, _RESIZES, _NEWCOMERS = range(4)
_KEEP: Final = 9

Command = tuple[int, int, int, int]
"""Kind, owner, and slot and fence; or whether it was sent before; or count and version."""

Call = tuple[State, str, tuple[Any, ...], int, int]
"""What a script finds, its name, its arguments, micros, seen."""

Results = list[tuple[State, Any]]


class Client(NamedTuple):
    """A process."""

    phase: int
    owner: int
    """Of its request."""
    slot: int
    fence: int
    left: int
    """For how long it believes in its permit."""
    sure: int
    """0 if Redis may have lost what it knew of the permit, and has not confirmed it since."""
    permits: int
    version: int
    """Of the number of permits, as far as it knows."""
    seen: int


class World(NamedTuple):
    """Redis and all processes."""

    server: State
    clients: tuple[Client, ...]
    under_way: tuple[Command, ...]
    budget: tuple[int, ...]
    """How often what is counted may still happen."""
    copy: State | None = None
    """What a replica has."""
    granted: int = 0
    """The highest fence that was granted, if fences do not follow a clock."""


Step = tuple[str, World, str]


@dataclass(frozen=True)
class Setting:
    """How many of what there is."""

    clients: int = 3
    slots: int = 2
    count: int = 2
    ttl: int = 2
    grace: int = 1
    under_way: int = 1
    """How many commands that nobody waits for there are at once."""
    losses: int = 0
    """How often Redis loses all keys, or any one of them."""
    failovers: int = 0
    """How often there is one to a replica that has not got the latest writes."""
    resizes: int = 0
    newcomers: int = 0
    """How often a process that never knew the semaphore makes it anew after a loss."""
    void: bool = False
    """Whether commands stay under way that can have no effect any more; else they are dropped."""
    behind: bool = False
    """Whether the server's clock is behind all fences, as if it had been set back."""

    @property
    def budget(self) -> tuple[int, ...]:
        """What is counted over a whole course."""
        return (self.losses, self.failovers, self.resizes, self.newcomers)

    @property
    def harmless(self) -> bool:
        """Whether Redis keeps its data."""
        return not (self.losses or self.failovers)


class Processes:
    """The model of the semaphore.

    Args:
        setting: How large it is.
        script: What runs the scripts; tests plant faults here.
    """

    def __init__(self, setting: Setting, script: type[Script] = Script) -> None:
        self.setting = setting
        self.script = script
        self.calls: dict[Call, Results] = {}
        """All that the scripts were asked so far."""
        self._ends: dict[State, str] = {}
        # Slots are alike but for the places where numbers count.
        self._mirrored = setting.slots == 2 and not setting.resizes
        self._idle = Client(IDLE, 0, ANY, 0, 0, 1, setting.count, 1, 0)

    def start(self) -> World:
        """The semaphore is there, and everybody knows it."""
        s = self.setting
        made = self.script(nothing(s.slots), 0, 1)
        made.begin(s.count, s.grace, s.ttl, _KEEP)
        idle = self._idle._replace(seen=made.fixed.fence if s.behind else 0)
        return World(made.state, (idle,) * s.clients, (), s.budget)

    # Steps

    def steps(self, world: World) -> Iterator[Step]:
        """All that can happen next."""
        yield self._time(world)
        yield from self._look(world)
        for number, client in enumerate(world.clients):
            if client.phase != HOLDS:
                yield from self._acquire(world, number, client)
                if world.server.free:
                    yield from self._pop(world, number, client)
                if client.phase != IDLE:
                    yield from self._abandon(world, number, client)
            else:
                yield from self._seat(world, number, client)
                yield from self._part(world, number, client)
            if world.budget[_RESIZES]:
                yield from self._resize(world, number, client)
        for at, command in enumerate(world.under_way):
            yield from self._arrive(world, at, command)
        yield from self._lose(world)

    def _time(self, world: World) -> Step:
        clients, what = [], "time passes"
        for number, client in enumerate(world.clients):
            if client.phase == HOLDS:
                if client.left > 1:
                    client = client._replace(left=client.left - 1)
                else:
                    what += f", c{number} has lost its permit"
                    client = self._ended(client)
            clients.append(client)
        copy = world.copy and later(world.copy)
        after = world._replace(server=later(world.server), clients=tuple(clients), copy=copy)
        return what, after, ""

    def _look(self, world: World) -> Iterator[Step]:
        """A tend that reaps. To renew and to reap in one is to do one after the other."""
        for knowledge in sorted({each[6:] for each in world.clients}):
            count, version, seen = knowledge
            arguments = (*self._terms, (count, version), True)
            for server, _ in self._run(world, "tend", arguments, seen):
                if server != world.server:
                    clients = tuple(
                        self._told(each, server) if each[6:] == knowledge else each
                        for each in world.clients
                    )
                    yield "somebody looks", world._replace(server=server, clients=clients), ""

    def _acquire(self, world: World, number: int, client: Client) -> Iterator[Step]:
        s = self.setting
        again = client.phase == ASKS_AGAIN
        owner = client.owner or _new_owner(world)
        # Whoever comes to another master has what is free there refreshed first.
        fresh = again or self._moved(world)
        for server, reply in self._run(world, "acquire", (owner, s.ttl, _KEEP, fresh), client.seen):
            if reply is None or len(reply) != 2:
                waits = self._told(self._waiting(client), server)
                yield f"c{number} asks, nothing is free", _with(world, number, waits, server), ""
                continue
            slot, fence = reply
            what = f"c{number} asks, is granted {slot}:{fence}"
            wrong = "" if again else self._granted(world, server, fence)
            heard = self._told(self._holding(client, owner, slot, fence, s.ttl), server)
            yield what, self._noted(_with(world, number, heard, server), fence), wrong
            unheard = client._replace(phase=ASKS_AGAIN, owner=owner)
            after = _with(world, number, unheard, server)
            if not s.losses:  # else a fence may come again that nobody has heard of
                after = self._noted(after, fence)
            yield f"{what}, but does not hear it", after, ""
        if client.phase == IDLE:
            what = f"c{number} asks, and gives up"
            for _, sent, _ in self._send(world, (ACQUIRE, owner, int(fresh), 0), what):
                yield what, sent, ""
                yield from self._send(sent, (RETURN, owner, ANY, 0), what)
                asking = client._replace(phase=ASKS_AGAIN, owner=owner)
                yield f"c{number} asks, and hears nothing", _with(sent, number, asking), ""
        elif again:
            yield from self._send(world, (ACQUIRE, owner, 1, 0), f"c{number} asks once more")

    def _pop(self, world: World, number: int, client: Client) -> Iterator[Step]:
        """A token comes to whoever waits, or came when it had gone."""
        if client.phase == ASKS_AGAIN:
            return
        (slot, fence), *rest = world.server.free
        server = world.server._replace(free=tuple(rest))
        if self._moved(world):
            # From before, perhaps: the connection that waits is a new one, too.
            popped = world._replace(server=server)
            arguments = (slot, fence, client.owner or _new_owner(world))
            for server, _ in self._run(popped, "release", arguments, client.seen):
                yield f"c{number} gives {slot}:{fence} back", world._replace(server=server), ""
            return
        record = world.server.records[slot]
        valid = record is not None and record.fence == fence and not record.owner
        wrong = self._granted(world, server, fence) if valid else ""
        owner = client.owner or _new_owner(world)
        holding = self._holding(client, owner, slot, fence, self.popped_for)
        if self.setting.failovers:
            holding = holding._replace(sure=0)
        after = self._noted(_with(world, number, holding, server), fence)
        yield f"c{number} waits, and pops {slot}:{fence}", after, wrong

    def _moved(self, world: World) -> bool:
        """Whether there is another master than in the beginning."""
        return world.budget[_FAILOVERS] < self.setting.failovers

    @property
    def popped_for(self) -> int:
        """For how long a token is believed in that was popped and not claimed yet."""
        return min(self.setting.grace, self.setting.ttl)

    def _abandon(self, world: World, number: int, client: Client) -> Iterator[Step]:
        """Its caller gives up: whatever it was granted goes back."""
        after = _with(world, number, self._ended(client))
        if client.phase == WAITS:
            yield f"c{number} leaves the line", after, ""
            return
        yield f"c{number} dies", after, ""
        yield from self._send(after, (RETURN, client.owner, ANY, 0), f"c{number} gives up")

    def _seat(self, world: World, number: int, client: Client) -> Iterator[Step]:
        """A claim, or a renewal."""
        ttl = self.setting.ttl
        seat = (client.slot, client.fence, client.owner, ttl)
        arguments = (*self._terms, (client.permits, client.version), False, (seat,))
        what = f"c{number} renews {client.slot}:{client.fence}"
        for server, reply in self._run(world, "tend", arguments, client.seen):
            if reply.seated[0]:
                heard, wrong = client._replace(left=ttl, sure=1), ""
            else:
                what, heard = f"{what}: gone", self._ended(client)
                wrong = "a permit was taken from its holder" if self.setting.harmless else ""
            yield what, _with(world, number, self._told(heard, server), server), wrong
            if server != world.server:
                unheard = _with(world, number, client, server)
                yield f"{what}, but does not hear it", unheard, ""

    def _part(self, world: World, number: int, client: Client) -> Iterator[Step]:
        """The end of a permit. A renewal may be under way."""
        _, owner, slot, fence, *_ = client
        token = f"{slot}:{fence}"
        after = _with(world, number, self._ended(client))
        yield f"c{number} dies, or forgets {token}", after, ""
        renewing = list(self._send(after, (SEAT, owner, slot, fence), f"c{number} forgets {token}"))
        yield from renewing
        what = f"c{number} releases {token}"
        for _, base, _ in [("", after, ""), *renewing]:
            yield from self._send(base, (RETURN, owner, slot, fence), what)

    def _resize(self, world: World, number: int, client: Client) -> Iterator[Step]:
        meta = world.server.meta
        if meta is None:
            return
        for count in range(1, self.setting.slots + 1):
            if count != meta.permits:
                arguments = (self.setting.ttl, _KEEP, count, meta.version)
                what = f"c{number} resizes to {count}"
                spent = _spend(world, _RESIZES)
                for server, _ in self._run(world, "resize", arguments, client.seen):
                    yield what, _with(spent, number, self._told(client, server), server), ""
                yield from self._send(spent, (RESIZE, 0, count, meta.version), what)

    def _send(self, world: World, command: Command, what: str) -> Iterator[Step]:
        """Something is under way that nobody waits for."""
        if len(world.under_way) < self.setting.under_way:
            after = world._replace(under_way=(*world.under_way, command))
            yield f"{what} ({_KINDS[command[0]]} under way)", after, ""

    def _arrive(self, world: World, at: int, command: Command) -> Iterator[Step]:
        kind, owner, one, other = command
        s = self.setting
        rest = world._replace(under_way=world.under_way[:at] + world.under_way[at + 1 :])
        what = f"{_KINDS[kind]} {one}:{other}"
        yield f"{what} never arrives", rest, ""
        tend = (*self._terms, (s.count, 1), False)  # by somebody who knows nothing newer
        arguments: tuple[Any, ...]
        if kind == SEAT:
            name, arguments = "tend", (*tend, ((one, other, owner, s.ttl),))
        elif kind == ACQUIRE:
            name, arguments = "acquire", (owner, s.ttl, _KEEP, bool(one))
        elif kind == RESIZE:
            name, arguments = "resize", (s.ttl, _KEEP, one, other)
        elif one == ANY:
            name, arguments = "tend", (*tend, (), ((ANY, 0, owner),))
        else:
            name, arguments = "release", (one, other, owner)
        for server, _ in self._run(world, name, arguments, 0):
            wrong = _undone(world.server, server, other) if kind == RESIZE else ""
            yield f"{what} arrives", rest._replace(server=server), wrong
            if server != world.server:  # its sender does not hear it, and sends it again
                yield f"{what} arrives, not for the last time", world._replace(server=server), ""

    def _lose(self, world: World) -> Iterator[Step]:
        server = world.server
        if world.budget[_LOSSES]:
            empty = nothing(self.setting.slots)
            losses = {
                "everything": empty,
                "free": server._replace(free=()),
                "held": server._replace(held=empty.held),
                "meta": server._replace(meta=None, records=empty.records),
            }
            for what, left in losses.items():
                if left != server:
                    yield f"Redis loses {what}", _spend(world, _LOSSES)._replace(server=left), ""
        if world.budget[_NEWCOMERS] and server.meta is None:
            s = self.setting
            arguments = (s.ttl, _KEEP, s.grace, s.count, None)
            for made, _ in self._run(world, "create", arguments, 0):
                spent = _spend(world, _NEWCOMERS)
                clients = _unsure(world.clients)
                after = spent._replace(server=made, clients=clients)
                yield "a newcomer makes it anew", after, ""
        if world.budget[_FAILOVERS] and world.copy is None:
            yield "the replica falls behind", world._replace(copy=server), ""
        elif world.budget[_FAILOVERS] and world.copy is not None:
            # A request is over within a lease, and so before the lease of what it was granted.
            clients = tuple(
                each if each.phase == HOLDS else each._replace(phase=IDLE, owner=0)
                for each in _unsure(world.clients)
            )
            after = _spend(world, _FAILOVERS)._replace(
                server=world.copy, clients=clients, under_way=(), copy=None
            )
            yield "failover to the replica", after, ""

    # What changes on the way

    @property
    def _terms(self) -> tuple[int, int, int]:
        return self.setting.ttl, _KEEP, self.setting.grace

    def _run(self, world: World, name: str, arguments: tuple[Any, ...], seen: int) -> Results:
        micros = 0 if self.setting.behind else _highest(world) + 1
        call = (world.server, name, arguments, micros, seen)
        results = self.calls.get(call)
        if results is None:
            results = self.calls[call] = self._ran(*call)
        return results

    def _ran(
        self, server: State, name: str, arguments: tuple[Any, ...], micros: int, seen: int
    ) -> Results:
        """Run a script; two results where the order of slots decides, which packing gives up."""
        script = self.script(server, 0, micros, seen)
        reply = getattr(script, name)(*arguments)
        results = [(script.state, reply)]
        if self._mirrored and (server.meta is None or _is_tied(server)):
            mirror = self.script(mirrored_state(server), 0, micros, seen)
            reply = getattr(mirror, name)(*_mirrored_arguments(name, arguments))
            other = mirrored_state(mirror.state)
            if other != script.state:
                if type(reply) is tuple and len(reply) == 2:
                    reply = (1 - reply[0], reply[1])
                results.append((other, reply))
        return results

    def _holding(self, client: Client, owner: int, slot: int, fence: int, left: int) -> Client:
        seen = max(client.seen, fence) if self.setting.behind else 0
        return Client(HOLDS, owner, slot, fence, left, 1, client.permits, client.version, seen)

    def _waiting(self, client: Client) -> Client:
        return client._replace(phase=WAITS) if client.owner else client

    def _ended(self, client: Client) -> Client:
        return Client(IDLE, 0, ANY, 0, 0, 1, client.permits, client.version, client.seen)

    def _told(self, client: Client, server: State) -> Client:
        """It has had an answer."""
        meta = server.meta
        if meta is not None and self.setting.behind and meta.fence > client.seen:
            client = client._replace(seen=meta.fence)
        if meta is not None and self.setting.resizes and meta.version >= client.version:
            client = client._replace(permits=meta.permits, version=meta.version)
        return client

    def _noted(self, world: World, fence: int) -> World:
        return world._replace(granted=max(world.granted, fence)) if self.setting.behind else world

    # What has to hold

    def _granted(self, world: World, server: State, fence: int) -> str:
        """What is wrong with a grant that leaves this."""
        if self.setting.failovers or server.meta is None:
            return ""
        if self.setting.behind and fence <= world.granted:
            return f"fence {fence} was granted after {world.granted}"
        out = server.circulating - len(server.free)
        if out > server.meta.permits:
            return f"{out} slots are out, and there are {server.meta.permits} permits"
        return ""

    def check(self, world: World) -> str:
        """What is wrong with a state."""
        return (
            self._check_believers(world)
            or _check_keys(world.server)
            or self._check_grants(world)
            or self._check_end(world.server)
        )

    def _check_believers(self, world: World) -> str:
        slots = [each.slot for each in world.clients if each.phase == HOLDS]
        sure = [each.slot for each in world.clients if each.phase == HOLDS and each.sure]
        if len(set(sure)) < len(sure):
            return "two believe in one slot"
        if any(slots.count(slot) > 2 for slot in slots):
            return "three believe in one slot"
        return ""

    def _check_grants(self, world: World) -> str:
        server, setting = world.server, self.setting
        owners = [each.owner for each in server.records if each is not None and each.owner]
        if setting.harmless and not setting.under_way and len(set(owners)) < len(owners):
            return "a request was granted two slots"
        holders = [each for each in world.clients if each.phase == HOLDS]
        if not (setting.behind or setting.failovers):
            granted = [each.fence for each in holders]
            granted += [each.fence for each in server.records if each is not None and each.owner]
            fences = [max(granted, default=0), *(fence for _, fence in server.free)]
            if fences != sorted(set(fences)):
                return "fences do not rise"
        for client in holders if setting.harmless else ():
            record, end = server.records[client.slot], server.held[client.slot]
            if record is None or record.fence != client.fence:
                return "somebody believes in a permit that was freed"
            if record.owner not in (0, client.owner):
                return "somebody believes in a permit that is another's"
            if end is not None and end < client.left:
                return "somebody believes in a permit for longer than its lease"
        return ""

    def _check_end(self, server: State) -> str:
        """Whether all permits come back if everybody falls silent but one, who looks."""
        known = self._ends.get(server)
        if known is None:
            known = self._ends[server] = self._end(server)
        return known

    def _end(self, server: State) -> str:
        s = self.setting
        count = server.meta.permits if server.meta else s.count
        fences = [fence for _, fence in server.free]
        fences += [each.fence for each in server.records if each is not None]
        micros = max(fences, default=0) + 1
        for at in range(s.ttl + 1):
            if at:
                server = later(server)
            script = self.script(server, 0, micros + at * s.slots)
            script.tend(*self._terms, (count, 0), True)
            server = script.state
        return "" if is_whole(server) else "a permit does not come back within a lease"

    # Names do not matter

    def pack(self, world: World) -> bytes:
        """Fences become ranks, owners get names in turn, clients and slots are put in order."""
        world = self._without_the_void(world)
        if self._mirrored:
            one, two = _rank(world.server, 0), _rank(world.server, 1)
            if one > two:
                world = mirrored(world)
            elif one == two:
                return min(self._packed(world), self._packed(mirrored(world)))
        return self._packed(world)

    def _without_the_void(self, world: World) -> World:
        """Without what can have no effect any more."""
        waiting = any(each.phase in (WAITS, ASKS_AGAIN) for each in world.clients)
        if self.setting.void or world.copy is not None or not (world.under_way or waiting):
            return world
        server = world.server
        owners = [each.owner for each in server.records if each is not None]
        owners += [each[1] for each in world.under_way if each[0] == ACQUIRE]
        owners += [each.owner for each in world.clients if each.phase == ASKS_AGAIN]
        kept = []
        for each in world.under_way:
            kind, owner, slot, fence = each
            if kind == SEAT or (kind == RETURN and slot != ANY):
                record = server.records[slot]
                if record is not None and record.fence > fence and not world.budget[_LOSSES]:
                    continue
                if record is None and self.setting.harmless:
                    continue
                if kind == RETURN and (record is None or record.fence != fence):
                    known = [(c.slot, c.fence) for c in world.clients]
                    known += [(c[2], c[3]) for c in world.under_way if c[0] == SEAT]
                    if (slot, fence) not in known:
                        continue
            elif kind == RETURN and owner not in owners:
                continue
            kept.append(each)
        clients = tuple(
            self._ended(each) if each.phase == WAITS and each.owner not in owners else each
            for each in world.clients
        )
        return world._replace(under_way=tuple(kept), clients=clients)

    def _packed(self, world: World) -> bytes:
        server, clients, under_way, budget, copy, granted = world
        behind = self.setting.behind
        numbers = sorted(_numbers(world, behind))
        rank = dict(zip(numbers, range(1, len(numbers) + 1), strict=True))
        rank[0] = 0
        states = (server,) if copy is None else (server, copy)
        if under_way:
            under_way = tuple(sorted(under_way, key=lambda each: (each[0], each[2:])))
        keyed = [(_signature(each, states, under_way), each) for each in clients]
        keyed.sort()
        names: dict[int, int] = {0: 0}
        name = names.setdefault
        out = [*budget, rank[granted], len(states)]
        for _, (phase, owner, slot, fence, left, sure, count, version, seen) in keyed:
            out += (phase, name(owner, len(names)), slot + 1, rank[fence], left, sure)
            out += (count, rank[version], rank[seen])
        for meta, records, free, held in states:
            if meta is None:
                out.append(0)
            else:
                highest = rank[meta.fence] if behind else 0
                out += (1, meta.permits, rank[meta.version], highest, meta.recovery)
            for record in records:
                if record is None:
                    out += (0, 0)
                else:
                    out += (rank[record.fence] + 1, name(record.owner, len(names)))
            out += [0 if end is None else end + 16 for end in held]
            out.append(len(free))
            for slot, fence in free:
                out += (slot, rank[fence])
        for kind, owner, slot, fence in under_way:
            out += (kind, name(owner, len(names)), slot + 1, rank[fence])
        return bytes(out)

    def unpack(self, packed: bytes) -> World:
        """The world that was packed, with new names."""
        s = self.setting
        at = len(s.budget) + 2
        clients = []
        for _ in range(s.clients):
            phase, owner, slot, *rest = packed[at : at + 9]
            clients.append(Client(phase, owner, slot - 1, *rest))
            at += 9
        states = []
        for _ in range(packed[len(s.budget) + 1]):
            meta = None
            if packed[at]:
                count, version, fence, recovery = packed[at + 1 : at + 5]
                meta = Meta(count, version, fence, s.grace, s.ttl, _KEEP, recovery)
                at += 4
            at += 1
            records = tuple(
                Record(packed[i] - 1, packed[i + 1], s.ttl if packed[i + 1] else 0)
                if packed[i]
                else None
                for i in range(at, at + 2 * s.slots, 2)
            )
            at += 2 * s.slots
            held = tuple(each - 16 if each else None for each in packed[at : at + s.slots])
            at += s.slots + 1
            end = at + 2 * packed[at - 1]
            free = tuple(zip(packed[at:end:2], packed[at + 1 : end : 2], strict=True))
            at = end
            states.append(State(meta, records, free, held))
        under_way = tuple(
            (packed[i], packed[i + 1], packed[i + 2] - 1, packed[i + 3])
            for i in range(at, len(packed), 4)
        )
        return World(
            states[0],
            tuple(clients),
            under_way,
            tuple(packed[: len(s.budget)]),
            states[1] if len(states) > 1 else None,
            packed[len(s.budget)],
        )

    def show(self, world: World) -> str:
        """For people."""
        parts = [_shown(world.server)]
        for number, each in enumerate(world.clients):
            if each.phase == HOLDS:
                parts.append(f"c{number} believes in {each.slot}:{each.fence} for {each.left}")
        parts += [f"{_KINDS[kind]} {one}:{two} under way" for kind, _, one, two in world.under_way]
        return " | ".join(parts)


def later(server: State) -> State:
    """The same a unit of time later. Of leases that are over only the order counts."""
    meta, records, free, held = server
    over = sorted({end for end in held if end is not None and end <= 1})
    rank = {end: at + 1 - len(over) for at, end in enumerate(over)}
    held = tuple(None if end is None else rank[end] if end in rank else end - 1 for end in held)
    if meta is not None and meta.recovery:
        meta = meta._replace(recovery=meta.recovery - 1)
    return State(meta, records, free, held)


def _with(world: World, number: int, client: Client, server: State | None = None) -> World:
    before, clients, under_way, budget, copy, granted = world
    clients = (*clients[:number], client, *clients[number + 1 :])
    return World(server or before, clients, under_way, budget, copy, granted)


def _spend(world: World, what: int) -> World:
    budget = list(world.budget)
    budget[what] -= 1
    return world._replace(budget=tuple(budget))


def _unsure(clients: Sequence[Client]) -> tuple[Client, ...]:
    return tuple(each._replace(sure=int(each.phase != HOLDS)) for each in clients)


def _numbers(world: World, meta_too: bool) -> set[int]:
    """All fences and versions."""
    server, clients, under_way, _, copy, granted = world
    found = {granted}
    for state in (server,) if copy is None else (server, copy):
        meta, records, free, _ = state
        for record in records:
            if record is not None:
                found.add(record.fence)
        for token in free:
            found.add(token[1])
        if meta is not None:
            found.add(meta.version)
            if meta_too:
                found.add(meta.fence)
    for client in clients:
        found.add(client.fence)
        found.add(client.version)
        found.add(client.seen)
    for command in under_way:
        found.add(command[3])
    found.discard(0)
    return found


def _highest(world: World) -> int:
    return max(_numbers(world, True), default=0)


def _new_owner(world: World) -> int:
    owners = [client.owner for client in world.clients]
    owners += [command[1] for command in world.under_way]
    for state in (world.server, world.copy):
        if state is not None:
            owners += [each.owner for each in state.records if each is not None]
    return max(owners) + 1


def _signature(
    client: Client, states: Sequence[State], under_way: Sequence[Command]
) -> tuple[object, ...]:
    """Equal for clients only if nothing tells them apart; fences keep their order."""
    phase, owner, *rest = client
    if not owner:
        return (phase, rest)
    places = [
        slot + 8 * number
        for number, state in enumerate(states)
        for slot, record in enumerate(state.records)
        if record is not None and record.owner == owner
    ]
    places += [100 + at for at, command in enumerate(under_way) if command[1] == owner]
    return (phase, rest, places)


def _rank(server: State, slot: int) -> tuple[int, int]:
    record, end = server.records[slot], server.held[slot]
    return (record.fence if record else -1, -99 if end is None else end)


def mirrored(world: World) -> World:
    """The same with the names of the two slots exchanged."""
    clients = tuple(
        each if each.slot < 0 else each._replace(slot=1 - each.slot) for each in world.clients
    )
    under_way = tuple(
        (kind, owner, 1 - one, two) if kind in (SEAT, RETURN) and one >= 0 else each
        for each in world.under_way
        for kind, owner, one, two in (each,)
    )
    copy = world.copy and mirrored_state(world.copy)
    return World(
        mirrored_state(world.server), clients, under_way, world.budget, copy, world.granted
    )


def mirrored_state(state: State) -> State:
    """The same with the names of the two slots exchanged."""
    free = tuple((1 - slot, fence) for slot, fence in state.free)
    return State(state.meta, state.records[::-1], free, state.held[::-1])


def _mirrored_arguments(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if name == "release":
        slot, *rest = arguments
        return (1 - slot, *rest)
    if name == "tend" and len(arguments) > 5:
        seats = tuple((1 - slot, *rest) for slot, *rest in arguments[5])
        return (*arguments[:5], seats, *arguments[6:])  # what is returned is ANY
    return arguments


def _is_tied(server: State) -> bool:
    """Whether two leases are over that ended at the same time."""
    over = [end for end in server.held if end is not None and end <= 0]
    return len(set(over)) < len(over)


def _undone(before: State, after: State, version: int) -> str:
    """What is wrong with a late resize that was to replace a version."""
    if before.meta is None or after.meta is None or before.meta.version == version:
        return ""
    return "a late resize undoes another" if before.meta.permits != after.meta.permits else ""


def _check_keys(server: State) -> str:
    if server.meta is None:
        return ""
    listed = [slot for slot, _ in server.free]
    if len(set(listed)) < len(listed):
        return "a slot is free twice"
    for slot, fence in server.free:
        record = server.records[slot]
        if server.held[slot] is not None:
            return f"slot {slot} is free and held"
        if record is None or record.owner or record.fence != fence:
            return f"the token of slot {slot} is none"
    for record, end in zip(server.records, server.held, strict=True):
        if end is not None and record is None:
            return "a slot is held that does not circulate"
    return ""


def _shown(server: State) -> str:
    if server.meta is None:
        return "no semaphore"
    parts = []
    for slot, (record, end) in enumerate(zip(server.records, server.held, strict=True)):
        if record is not None:
            who = f" of o{record.owner}" if record.owner else ""
            lease = "" if end is None else f" until {end}"
            parts.append(f"s{slot} is {record.fence}{who}{lease}")
    free = " ".join(f"{slot}:{fence}" for slot, fence in server.free)
    recovery = f", recovers for {server.meta.recovery}" if server.meta.recovery else ""
    return f"{server.meta.permits} permits, {', '.join(parts)}, free [{free}]{recovery}"
