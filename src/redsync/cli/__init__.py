"""The ``redsync`` command.

Nothing below this package knows of it, and importing it needs nothing but the standard library:
click and rich come with the extra ``redsync[cli]`` and are imported when the command runs.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

_REQUIRED = ("click", "rich")


def main() -> None:
    """Run the ``redsync`` command, or say how to install what it needs."""
    missing = [name for name in _REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"The redsync command needs {' and '.join(missing)}, which the extra 'cli' installs:\n"
            "    pip install 'redsync[cli]'"
        )
    from .commands import redsync

    redsync(prog_name="redsync")
