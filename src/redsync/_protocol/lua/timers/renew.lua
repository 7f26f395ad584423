-- Renew the leases of timers that run.
--
-- KEYS  see common.lua
-- ARGV  for each: ordinal of its topic, fence, lease, member
-- Reply for each 1, or 0 if it is not this run's any more
-- include timers/common.lua

call('HDEL', meta, '') -- after a delete, writing goes on even if there is no memory left
local reply = {}
for i = 1, #ARGV, 4 do
  local ordinal, fence, lease, member = unpack(ARGV, i, i + 3)
  local record = call('HGET', state, member)
  local r = record and parse(record)
  local ours = r and r.fence == fence
  if ours then
    local at = now + tonumber(lease)
    if r.rearmed then
      at = math.max(at, r.due)
    end
    call('ZADD', due(tonumber(ordinal)), seconds(at), r.seq .. member)
  end
  reply[#reply + 1] = ours and 1 or 0
end
return reply
