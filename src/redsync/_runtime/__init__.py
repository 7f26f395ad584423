"""The seam: whatever differs between tasks and threads, written twice by hand.

`aio` and `sync` offer the same names. The code above imports from `aio`; the generator of the
blocking twin turns that into `sync`.
"""
