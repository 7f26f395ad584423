-- Give a permit back, or a token that came for nobody.
--
-- KEYS  free, held, meta
-- ARGV  slot, fence, owner, seen
-- Reply 1 if it was theirs, else 0: it was returned before, or belongs to somebody else by now.
local call = redis.call
local seen = tonumber(ARGV[4])
-- include semaphore/common.lua

return give_back(ARGV[1], ARGV[2], ARGV[3]) and 1 or 0
