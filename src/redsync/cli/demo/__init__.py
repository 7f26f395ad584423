"""``redsync demo``: processes of both kinds compete for three permits, and one of them is killed.

`command` is the course of it, `crew` the worker processes, `worker` what each of them runs,
`history` what they report, `checks` what must be true of that, and `show` what there is to see.
"""
