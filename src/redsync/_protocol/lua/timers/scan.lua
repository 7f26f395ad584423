-- Look through a page of the timeline for what redis-timers has armed.  Changes nothing.
--
-- KEYS  see common.lua
-- ARGV  rank of the first one to look at, number
-- Reply {number looked at, {members without a record}, {those armed for another time than that}}
-- include timers/common.lua

local page = call('ZRANGE', timeline, ARGV[1], ARGV[1] + ARGV[2] - 1, 'WITHSCORES')
local members, unknown, moved = {}, {}, {}
for i = 1, #page, 2 do
  members[#members + 1] = page[i]
end
if #members > 0 then
  for i, record in ipairs(call('HMGET', state, unpack(members))) do
    local r = record and parse(record)
    if not r then
      unknown[#unknown + 1] = members[i]
    elseif r.fence == NONE and r.due ~= micros(page[2 * i]) then
      moved[#moved + 1] = members[i]
    end
  end
end
return { #members, unknown, moved }
