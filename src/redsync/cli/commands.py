"""The command group.  A subcommand is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any, Final

import click

from .urls import without_urls

__all__ = ["redsync"]

COMMANDS: Final = {
    "demo": "redsync.cli.demo.command",
    "timers": "redsync.cli.timers.command",
    "torture": "redsync.cli.torture.command",
}
"""Where a subcommand lives: a module with a `click.Command` of the subcommand's name."""


class LazyGroup(click.Group):
    """A group that imports a subcommand's module at its first use, as each has its own needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands' names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand; None if there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; an error of usage repeats no URL, which may have a password in it."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(without_urls(error.format_message()), error.ctx) from None


@click.group(cls=LazyGroup)
@click.version_option(package_name="redsync")
def redsync() -> None:
    """Distributed synchronisation on Redis or Valkey."""
