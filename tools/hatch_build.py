"""Hatchling hook: a wheel, and an editable install, carries the generated twin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SyncTwinHook(BuildHookInterface[Any]):
    """Generates ``redsync._sync`` and has it packed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the twin before the files of a wheel are collected."""
        # The sdist ships the source of truth and this hook, not its output.  An editable install
        # is a wheel target too.
        if self.target_name != "wheel":
            return
        sys.path.insert(0, str(Path(self.root, "tools")))
        from gen_sync import PACKAGE, generate

        generate(PACKAGE)
        # The twin is git-ignored, so that hatchling would leave it out without a word.
        build_data["artifacts"].append(f"/{PACKAGE.target}/**/*.py")
