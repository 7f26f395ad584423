"""What travels to Redis and back: keys, scripts, commands out and replies in. No I/O."""
