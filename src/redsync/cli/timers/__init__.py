"""``redsync timers``: runs timers, and shows and mends what is in Redis."""
