-- Put signals back that nobody was woken by.
--
-- KEYS  signals, open, sets
-- ARGV  grace (ms), then signals to give back, confirmed or not
-- Reply ms until somebody's time to confirm ends, -1 if there is nobody.
-- include event/common.lua

local grace = tonumber(ARGV[1])
for i = 2, #ARGV do
  if call('ZREM', open, ARGV[i], 'confirmed ' .. ARGV[i]) > 0 then
    call('LREM', signals, 1, ARGV[i])
    put(ARGV[i])
  end
end

for _, signal in ipairs(call('ZRANGEBYSCORE', open, '(0', now)) do
  call('ZREM', open, signal)
  put(signal)
end
for _, signal in ipairs(call('ZRANGEBYSCORE', open, '(' .. text(now + grace), '+inf')) do
  call('ZADD', open, text(now + grace), signal) -- the clock was set back
end

local listed, known = call('LLEN', signals), call('ZCOUNT', open, 0, 0)
if listed > known then
  for _, id in ipairs(call('LRANGE', signals, 0, -1)) do
    call('ZADD', open, 'NX', 0, id) -- `open` was evicted
  end
elseif known > listed then
  -- Popped and not confirmed yet, or popped by somebody who died: older than the list's head.
  local head = call('LINDEX', signals, 0)
  for _, id in ipairs(call('ZRANGEBYSCORE', open, 0, 0, 'LIMIT', 0, known - listed)) do
    if id ~= head then
      call('ZADD', open, text(now + grace), id)
    end
  end
end

settle()
local first = call('ZRANGEBYSCORE', open, '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return first[2] and math.max(0, tonumber(first[2]) - now) or -1
