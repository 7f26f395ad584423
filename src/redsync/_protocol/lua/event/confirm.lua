-- Somebody was woken by this signal.
--
-- KEYS  signals, open, sets
-- ARGV  the signal: an id that was popped, or the owner that took it
-- Reply 1, or 0 if it was taken from them meanwhile, and went to somebody else.
-- include event/common.lua

local memory = 'confirmed ' .. ARGV[1]
if call('ZREM', open, ARGV[1]) == 1 then
  call('ZADD', open, text(-now), memory)
  settle()
  return 1
end
return call('ZSCORE', open, memory) and 1 or 0
