-- Arm timers.  One that is armed already is replaced; while it runs, the new arming waits.
--
-- KEYS  see common.lua
-- ARGV  for each timer, each member once: ordinal and length (4 digits) of its topic, "+" and time
--       from now or "=" and an instant, "every policy" or "", member, payload
-- Reply {1, now}, or {0, member} if that timer is one of another topic: then nothing was done
-- include timers/common.lua

-- The first write is refused if there is no memory left, before anything has changed.
if not call('SET', memo, digits(now), 'NX', 'PX', MEMORY) then
  return { 1, call('GET', memo) }
end

local count = #ARGV / 6
local members = {}
for i = 1, count do
  members[i] = ARGV[6 * i - 1]
end
local records = call('HMGET', state, '', unpack(members))
local number = succeeding(table.remove(records, 1))
for i = 1, count do
  records[i] = records[i] and parse(records[i])
  if records[i] and records[i].length ~= ARGV[6 * i - 4] then
    call('DEL', memo)
    return { 0, members[i] }
  end
end

local scores, bodies, states = {}, {}, { '', digits(number + count - 1) }
local entries, outdated, earliest = {}, {}, {}

-- Until when a timer that is armed anew is left alone, and what its record keeps, as it runs.
local function superseded(ordinal, old, member, instant)
  local entry = old.seq .. member
  outdated[ordinal][#outdated[ordinal] + 1] = entry
  if old.fence == NONE then
    return instant, NONE
  end
  local lease = call('ZSCORE', due(ordinal), entry)
  return lease and math.max(instant, micros(lease)) or instant, old.fence, old.holder
end

for i = 1, count do
  local ordinal, length, when, every = unpack(ARGV, 6 * i - 5, 6 * i - 2)
  ordinal = tonumber(ordinal)
  local instant = tonumber(string.sub(when, 2))
  if string.sub(when, 1, 1) == '+' then
    instant = now + instant
  end
  if not entries[ordinal] then
    entries[ordinal], outdated[ordinal], earliest[ordinal] = {}, {}, math.huge
  end
  local at, fence, holder = instant, NONE, nil
  if records[i] then
    at, fence, holder = superseded(ordinal, records[i], members[i], instant)
  end
  local seq = digits(number + i - 1)
  scores[2 * i - 1], scores[2 * i] = seconds(instant), members[i]
  bodies[2 * i - 1], bodies[2 * i] = members[i], ARGV[6 * i]
  states[2 * i + 1] = members[i]
  states[2 * i + 2] = written({
    seq = seq,
    fence = fence,
    due = instant,
    rearmed = fence ~= NONE,
    attempts = 0,
    length = length,
    holder = holder,
    every = every,
  })
  local list = entries[ordinal]
  list[#list + 1] = seconds(at)
  list[#list + 1] = seq .. members[i]
  earliest[ordinal] = math.min(earliest[ordinal], at)
end
call('ZADD', timeline, unpack(scores))
call('HSET', payloads, unpack(bodies))
call('HSET', state, unpack(states))
for ordinal, list in pairs(entries) do
  local soon = earliest[ordinal] <= now + HORIZON
  local before = soon and head(ordinal)
  if #outdated[ordinal] > 0 then
    call('ZREM', due(ordinal), unpack(outdated[ordinal]))
  end
  call('ZADD', due(ordinal), unpack(list))
  if soon then
    nudge(ordinal, before, earliest[ordinal])
  end
end
return { 1, digits(now) }
