-- Give a permit back, or a token that came for nobody.
--
-- KEYS  free, held, meta
-- ARGV  slot, fence, owner, seen
-- Reply 1 if it was theirs, else 0: it was returned before, or belongs to somebody else by now.
local call = redis.call
local seen = tonumber(ARGV[4])

-- What nearly always happens, with as little as possible: a grant ends that is on record, and there
-- are as many slots as permits. give_back() does the same, and everything else.
local slot = ARGV[1]
local m = call('HMGET', KEYS[3], 's' .. slot, 'count', 'fence', 'recovery', 'keep')
local mark = ARGV[2] .. ' ' .. ARGV[3] .. ' '
if m[1] and string.sub(m[1], 1, #mark) == mark and tonumber(slot) < tonumber(m[2]) then
  local time = call('TIME')
  local micros = time[1] * 1000000 + time[2]
  if micros >= m[4] * 1000 and call('HLEN', KEYS[3]) - 7 <= tonumber(m[2])
      and call('ZREM', KEYS[2], slot) == 1 then
    local fence = string.format('%.0f', math.max(m[3] + 1, micros, seen + 1))
    call('HSET', KEYS[3], 'fence', fence, 's' .. slot, fence)
    if call('RPUSH', KEYS[1], slot .. ':' .. fence) == 1 then
      call('PEXPIRE', KEYS[1], m[5])
    end
    return 1
  end
end
-- include semaphore/common.lua

return give_back(slot, ARGV[2], ARGV[3]) and 1 or 0
