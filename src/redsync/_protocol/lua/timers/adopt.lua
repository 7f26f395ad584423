-- Index timers that redis-timers has armed.
--
-- KEYS  see common.lua
-- ARGV  for each: ordinal and length (4 digits) of its topic, member
-- Reply how many there still were
-- include timers/common.lua

local count = 0
for i = 1, #ARGV, 3 do
  local ordinal, length, member = unpack(ARGV, i, i + 2)
  local score, record = call('ZSCORE', timeline, member), call('HGET', state, member)
  local r = record and parse(record) or { seq = '', fence = NONE, length = length, every = '' }
  if score and r.fence == NONE and r.length == length and r.due ~= micros(score) then
    r.every = ''
    rearm(tonumber(ordinal), member, r, micros(score))
    count = count + 1
  end
end
return count
