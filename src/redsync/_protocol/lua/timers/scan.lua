-- Look through a page of the timeline for what no worker would come to: timers that redis-timers has
-- armed, and what a loss of data has left without an entry.  Changes nothing.
--
-- KEYS  see common.lua; the topics of the worker
-- ARGV  cursor of ZSCAN, number, for each topic: its name
-- Reply {next cursor, {members without a record}, {members whose record or entry is not right}}
-- include timers/common.lua

-- By rank, those would be passed over that move down when others are completed meanwhile.
local cursor, page = unpack(call('ZSCAN', timeline, ARGV[1], 'COUNT', ARGV[2]))
local members, ordinals, unknown, wrong = {}, {}, {}, {}
for i = 1, #page, 2 do
  members[#members + 1] = page[i]
end
for i = 3, #ARGV do
  ordinals[ARGV[i]] = i - 2
end

local function indexed(member, r)
  local ordinal = ordinals[string.sub(member, 1, tonumber(r.length))]
  return not ordinal or call('ZSCORE', due(ordinal), r.seq .. member)
end

if #members > 0 then
  for i, record in ipairs(call('HMGET', state, unpack(members))) do
    local member, r = members[i], record and parse(record)
    if not r or member == '' then -- that field of the records is a number
      unknown[#unknown + 1] = member
    elseif r.fence == NONE and r.due ~= micros(page[2 * i]) or not indexed(member, r) then
      wrong[#wrong + 1] = member
    end
  end
end
return { cursor, unknown, wrong }
