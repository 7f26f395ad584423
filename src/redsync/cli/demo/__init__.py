"""``redsync demo``: processes of both kinds do what the library is for, and some are killed.

There are two scenes: `permits` and `timers`.  `command` plays both, `course` is what they have in
common, `crew` are the worker processes, and `worker` and `timer_worker` what these run.  `history`
and `timer_history` hold what they report, `checks` and `timer_checks` what must be true of that,
`summary` what it comes to, and `show` what there is to see.
"""
