"""Requests and replies that get lost, each way."""

from __future__ import annotations

import pytest

from ..support.proxy import Fault, FaultProxy, How

losses = pytest.mark.parametrize(
    ("loss", "how"), [("request", "reset"), ("reply", "close"), ("reply", "reset")]
)


def lose(proxy: FaultProxy, loss: str, match: str, how: How = "close") -> Fault:
    """Lose the next request that contains `match`, or the reply to it."""
    return (proxy.lose_request if loss == "request" else proxy.lose_reply)(match, how=how)
