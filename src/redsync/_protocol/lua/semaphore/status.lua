-- Read everything, change nothing.
--
-- KEYS  free, held, meta
-- Reply an array: TIME, all of meta, the tokens of free, the slots of held with their deadlines.
local call = redis.call
return {
  call('TIME'),
  call('HGETALL', KEYS[3]),
  call('LRANGE', KEYS[1], 0, -1),
  call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'),
}
