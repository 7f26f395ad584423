"""The proxy that breaks the link to a server, as the tests import it."""

from __future__ import annotations

from redsync.cli.proxy import Direction, Fault, FaultProxy, How

__all__ = ["Direction", "Fault", "FaultProxy", "How"]
