-- Change the number of permits.
--
-- KEYS  free, held, meta
-- ARGV  seen, ttl (ms), keep (ms), count, the version that it replaces
-- Reply an array: count, version, fence, grace, ttl; nothing was changed if the version was another
--       one.  Or nil if there is no such semaphore.
local call = redis.call
local seen = tonumber(ARGV[1])
-- include semaphore/common.lua

if call('PEXPIRE', meta, ARGV[3]) == 0 then
  return false
end
keep_alive(tonumber(ARGV[2]), tonumber(ARGV[3]))
if call('HGET', meta, 'version') == ARGV[5] then
  local version = mint(call('HGET', meta, 'fence'))
  call('HSET', meta, 'fence', version)
  set_count(tonumber(ARGV[4]), version)
end
return answer()
