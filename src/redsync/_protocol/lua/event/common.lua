-- What the scripts of the event share; docs/protocol.md describes the life of a signal.
--
-- KEYS: signals, open, sets.
-- open says for each signal: 0 if it is in the list, or was popped and not missed yet; else until
-- when (ms) somebody has the time to confirm it.  Below 0: confirmed then, and kept for a while in
-- case that the one who was woken gives it back.
-- sets has the requests of the last minute, in the order of the ids that were minted for them.
local call = redis.call
local signals, open, sets = KEYS[1], KEYS[2], KEYS[3]
local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local MEMORY = 60000

local function text(number)
  return string.format('%.0f', number)
end

-- Ids rise, and have 16 digits: so the list is sorted, and equal scores in `open` are too.
local function mint(request)
  local last = call('ZRANGE', sets, -1, -1, 'WITHSCORES')
  local id = text(math.max(tonumber(last[2] or 0) + 1, micros))
  call('ZADD', sets, id, request)
  call('ZREMRANGEBYSCORE', sets, '-inf', '(' .. text(math.min(micros - MEMORY * 1000, id)))
  call('PEXPIRE', sets, 2 * MEMORY)
  return id
end

local function put(request)
  local id = mint(request)
  call('RPUSH', signals, id)
  call('ZADD', open, 0, id)
  call('PERSIST', open)
end

-- Let `open` go once it holds nothing but memories.
local function settle()
  call('ZREMRANGEBYSCORE', open, '(' .. text(MEMORY - now), '(0')
  if call('ZCOUNT', open, 0, '+inf') == 0 then
    call('PEXPIRE', open, MEMORY)
  end
end
