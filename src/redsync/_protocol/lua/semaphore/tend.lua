-- Renew leases, return permits, and reap, for one process.
--
-- KEYS  free, held, meta
-- ARGV  seen, ttl (ms), keep (ms), grace (ms), count, version, "1" to reap, lead (us), number of
--       seats; for each seat slot, fence, owner, ttl (ms), age (ms), identifier; then
--       for each return slot, fence, owner, or "", "", owner for whatever that owner was granted
-- Reply an array: ms until the next lease ends (-1: none), the seats as a string of "1" (renewed)
--       and "0" (gone), count, version, fence, grace, ttl.
local call = redis.call
local seen = tonumber(ARGV[1])
-- include semaphore/common.lua

local ttl, keep, count, version = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5]), ARGV[6]
if call('PEXPIRE', meta, ARGV[3]) == 0 then
  recreate(count, version, ARGV[4], ttl, keep)
elseif tonumber(version) > tonumber(call('HGET', meta, 'version')) then
  set_count(count, version) -- the data went back to before a resize
end
keep_alive(ttl, keep)
if ARGV[8] ~= '0' then
  -- The process comes from another server, which may go on granting: fences here rise above those.
  call('HSET', meta, 'fence', mint(math.max(call('HGET', meta, 'fence'), micros + ARGV[8])))
end

-- A permit that its holder believes in gets its lease, unless somebody else has the better claim.
local function seat(slot, fence, owner, lease, age, identifier)
  local record = call('HGET', meta, 's' .. slot)
  if not record then
    return false
  end
  local known, holder = parse(record)
  local ours = tonumber(fence)
  if ours < known or ours == known and holder and holder ~= owner then
    return false
  end
  if ours > known then
    -- A fence that this server never gave: its data went back in time. Of two grants the later one
    -- is in the right; the other holder finds out.
    if ours > tonumber(call('HGET', meta, 'fence')) then
      call('HSET', meta, 'fence', fence)
    end
  end
  if not call('ZSCORE', held, slot) then
    call('LREM', free, 0, slot .. ':' .. text(known))
  end
  if ours > known or not holder then
    call('HSET', meta, 's' .. slot,
      fence .. ' ' .. owner .. ' ' .. lease .. ' ' .. text(now - age) .. ' ' .. identifier)
  end
  call('ZADD', held, text(now + lease), slot)
  return true
end

local function return_all_of(owner)
  local fields = call('HGETALL', meta)
  for i = 1, #fields, 2 do
    local fence, holder = string.match(fields[i + 1], '^(%d+) (%S+) ')
    if holder == owner then
      give_back(string.sub(fields[i], 2), fence, owner)
    end
  end
end

local seats = {}
local at = 10
for i = 1, tonumber(ARGV[9]) do
  seats[i] = seat(unpack(ARGV, at, at + 5)) and '1' or '0'
  at = at + 6
end
while ARGV[at] do
  if ARGV[at] == '' then
    return_all_of(ARGV[at + 2])
  else
    give_back(ARGV[at], ARGV[at + 1], ARGV[at + 2])
  end
  at = at + 3
end
if ARGV[7] == '1' then
  reap()
end
call('PEXPIRE', held, call('HGET', meta, 'keep'))
return answer(nearest(), table.concat(seats))
