"""``redsync torture``: work under faults, and whether all that is promised held."""
