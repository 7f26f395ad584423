-- Arm a dead timer again, due at once.
--
-- KEYS  see common.lua
-- ARGV  member, length of its topic (4 digits)
-- Reply "revived", "armed" if its id is in use (then nothing changes), or "absent"
-- include timers/common.lua

local answer = call('GET', memo)
if answer then
  return answer
end
local member, letter = ARGV[1], call('HGET', dead, ARGV[1])
if not letter or string.sub(letter, 1, 4) ~= ARGV[2] then
  return 'absent'
elseif call('ZSCORE', timeline, member) then
  return 'armed'
end
call('SET', memo, 'revived', 'PX', MEMORY)
local header, rest = string.match(letter, '^([^\n]*)\n(.*)$')
local has, length = string.match(header or '', '(%d+) (%d+)$')
if has == '1' then
  call('HSET', payloads, member, string.sub(rest, length + 1))
end
call('ZADD', timeline, seconds(now), member)
call('HDEL', dead, member)
local fresh = { seq = '', length = ARGV[2], every = '' }
rearm(1, member, fresh, now)
return 'revived'
