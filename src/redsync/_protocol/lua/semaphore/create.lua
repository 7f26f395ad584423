-- Make the semaphore, or join the one that exists.
--
-- KEYS  free, held, meta
-- ARGV  seen, ttl (ms), keep (ms), grace (ms), count ("" to join only),
--       count and version as this process last knew them ("" if it never did)
-- Reply an array: count, version, fence, grace, ttl; its count differs from the one asked for if
--       somebody else made it, and then nothing was changed.  nil if there is nothing to join.
local call = redis.call
local seen = tonumber(ARGV[1])
-- include semaphore/common.lua

local ttl, keep = tonumber(ARGV[2]), tonumber(ARGV[3])
local count = call('HGET', meta, 'count')
if not count then
  if ARGV[7] ~= '' then
    -- Whoever knew it knows that there may be holders.
    recreate(tonumber(ARGV[6]), ARGV[7], ARGV[4], ttl, keep)
  elseif ARGV[5] ~= '' then
    call('DEL', free, held)
    local version = mint(0)
    call('HSET', meta, 'count', ARGV[5], 'version', version, 'fence', version, 'grace', ARGV[4],
      'ttl', text(ttl), 'keep', text(keep), 'recovery', '0')
    fill()
  else
    return false
  end
elseif ARGV[5] ~= '' and ARGV[5] ~= count then
  return answer()
end
keep_alive(ttl, keep)
return answer()
