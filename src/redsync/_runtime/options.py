"""How our connections differ from those of the user's client."""

from __future__ import annotations

import copy
from typing import Any

from redis.exceptions import ConnectionError

STALLED: float = 5.0
"""Seconds without an answer after which a connection counts as dead."""

SENTINEL: float = 0.5
"""Seconds that one sentinel has to answer before the next one is asked."""


def one_by_one(manager: Any) -> list[Any]:
    """A Sentinel of redis-py for each of its sentinels: it asks them in turn without a deadline of
    its own, and would not get past one that hangs.
    """
    managers = []
    for each in manager.sentinels:
        alone = copy.copy(manager)
        alone.sentinels = [each]
        managers.append(alone)
    return managers


def line_options(
    client_options: dict[str, Any], timeout: float | None, retry: object
) -> dict[str, Any]:
    """The keyword arguments for a connection of our own, from those of the client's pool.

    Host, TLS, credentials, database and Sentinel stay. What goes is all that would send a command
    twice, decode what it reads, or write to the connection behind our back.

    Args:
        client_options: `connection_kwargs` of the client's pool.
        timeout: For each send and receive, in seconds.
        retry: A policy that tries once.
    """
    options = dict(client_options)
    options.update(
        socket_timeout=timeout,
        retry=retry,
        retry_on_timeout=False,
        retry_on_error=[],
        health_check_interval=0,
        decode_responses=False,
        protocol=2,
    )
    if "path" not in options:  # a unix socket knows no such timeout; others have a default
        options["socket_connect_timeout"] = timeout
    # redis-py 8 subscribes to announcements of maintenance, which only its own pool understands.
    if options.pop("maint_notifications_pool_handler", None) is not None or (
        "maint_notifications_config" in options
    ):
        options.pop("maint_notifications_config", None)
        from redis.maint_notifications import MaintNotificationsConfig

        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return options


def without_clients(error: ConnectionError) -> ConnectionError:
    """What is said if Sentinel names no master, without the sentinels' clients, whose passwords
    redis-py 6 and 7 show.
    """
    text, _, details = str(error).partition(" : ")
    return type(error)(f"{text}: no sentinel names one" if details else text)
