-- Remove a timer.
--
-- KEYS  see common.lua
-- ARGV  member, length of its topic (4 digits)
-- Reply "cancelled": no run of this arming has begun or will;
--       "started": one has, and what it left to be done is not done; "absent": there is no such timer
-- include timers/common.lua

local answer = call('GET', memo)
if answer then
  return answer
end
local member, record = ARGV[1], call('HGET', state, ARGV[1])
local r = record and parse(record)
if r and r.length ~= ARGV[2] then
  return 'absent'
end
if r then
  call('ZREM', due(1), r.seq .. member)
end
if record then
  call('HDEL', state, member)
end
call('HDEL', payloads, member)
if call('ZREM', timeline, member) == 0 then
  answer = 'absent' -- redis-timers has removed it
elseif r and not r.rearmed and (r.fence ~= NONE or r.attempts > 0 or r.cut) then
  answer = 'started'
else
  answer = 'cancelled'
end
call('SET', memo, answer, 'PX', MEMORY)
return answer
