"""A model of the protocol, to be explored exhaustively. The product never imports it.

`semaphore` and `timers` say in Python what the scripts in `lua` do to an immutable state; tests
compare each of them with the real script. `processes` and `workers` put clients around them, which
crash, are late, and lose answers; `explore` goes through everything that can happen then.

    python -m redsync._protocol.model
"""
