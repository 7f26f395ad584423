"""How fast redsync is, beside its peers and beside what the client and the network need anyway.

    python -m benchmarks            # everything, for docs/benchmarks
    python -m benchmarks --quick    # a look, in less than a minute

What is measured runs in programs of its own (`programs`), each in an environment that has the peer
in question, and answers orders, so that all take turns on one server: A B A B.  `rows` says what is
compared, `report` writes it down.  Nothing fails because a machine is slow.
"""
