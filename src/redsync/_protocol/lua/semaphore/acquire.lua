-- Take a free permit.
--
-- KEYS  free, held, meta
-- ARGV  owner, ttl (ms), keep (ms), seen, identifier, "1" if this request was sent before, or comes
--       to a server that may be another one than before
-- Reply the token "slot:fence"; or, with nothing free, an array: ms until the next lease ends (-1:
--       none), how many tokens this call pushed, count, version, fence, grace, ttl; or nil if
--       there is no such semaphore.
local call = redis.call

local function grant(token)
  local slot, fence = string.match(token, '^(%d+):(%d+)$')
  if not slot then
    return false -- somebody else's
  end
  local m = call('HMGET', KEYS[3], 's' .. slot, 'keep')
  if m[1] ~= fence then
    return false -- a left-over of lost data
  end
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  call('HSET', KEYS[3], 's' .. slot,
    fence .. ' ' .. ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. now .. ' ' .. ARGV[5])
  -- The key may be a new one, without a time to live; to ask whether it is takes as long.
  if call('ZADD', KEYS[2], now + ARGV[2], slot) == 1 then
    call('PEXPIRE', KEYS[2], m[2])
  end
  return true
end

if ARGV[6] ~= '1' then
  local token = call('LPOP', KEYS[1])
  if token and grant(token) then
    return token
  end
end

local seen = tonumber(ARGV[4])
-- include semaphore/common.lua

if call('PEXPIRE', meta, ARGV[3]) == 0 then
  return false
end
keep_alive(tonumber(ARGV[2]), tonumber(ARGV[3]))
if ARGV[6] == '1' then
  local fields = call('HGETALL', meta)
  for i = 1, #fields, 2 do
    local fence, owner = string.match(fields[i + 1], '^(%d+) (%S+) ')
    if owner == ARGV[1] then
      local slot = string.sub(fields[i], 2)
      if call('ZADD', held, 'XX', 'CH', text(now + ARGV[2]), slot) == 1 or
          call('ZSCORE', held, slot) then
        return slot .. ':' .. fence
      end
    end
  end
  refresh()
end
local token = call('LPOP', free)
while token do
  if grant(token) then
    return token
  end
  token = call('LPOP', free)
end
-- What the reaper pushes belongs to whoever is blocked already: nothing of it is taken here.
reap()
return answer(nearest(), pushed)
