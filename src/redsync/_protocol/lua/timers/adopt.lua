-- Index timers that redis-timers has armed, or that have lost their entry.
--
-- KEYS  see common.lua
-- ARGV  for each: ordinal and length (4 digits) of its topic, member
-- Reply how many needed it
-- include timers/common.lua

local function adopt(ordinal, length, member)
  local score, record = call('ZSCORE', timeline, member), call('HGET', state, member)
  local r = record and parse(record) or { seq = '', fence = NONE, length = length, every = '' }
  if not score or r.length ~= length or member == '' then
    return 0
  elseif r.fence == NONE and r.due ~= micros(score) then
    r.every = ''
    rearm(ordinal, member, r, micros(score))
  elseif call('ZSCORE', due(ordinal), r.seq .. member) then
    return 0
  else
    -- A worker that runs it renews its lease before that, unless it is a long one.
    place(ordinal, member, r, r.fence == NONE and r.due or now + HORIZON)
  end
  return 1
end

local count = 0
for i = 1, #ARGV, 3 do
  count = count + adopt(tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2])
end
return count
