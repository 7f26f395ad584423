-- Forget a dead timer.
--
-- KEYS  see common.lua
-- ARGV  member, length of its topic (4 digits)
-- Reply "discarded" or "absent"
-- include timers/common.lua

local answer = call('GET', memo)
if answer then
  return answer
end
local letter = call('HGET', dead, ARGV[1])
if not letter or string.sub(letter, 1, 4) ~= ARGV[2] then
  return 'absent'
end
call('HDEL', dead, ARGV[1])
call('SET', memo, 'discarded', 'PX', MEMORY)
return 'discarded'
