"""The source of truth: asyncio code, from which the blocking twin `_sync` is generated."""
