-- Take a signal, to be confirmed.
--
-- KEYS  signals, open, sets
-- ARGV  owner, lease (ms), "1" if this request was sent before
-- Reply 1 if the owner has one, else 0.
-- include event/common.lua

if ARGV[3] == '1' and call('ZSCORE', open, ARGV[1]) then
  return 1
end
local id = call('LPOP', signals)
if not id then
  return 0
end
call('ZREM', open, id)
call('ZADD', open, text(now + ARGV[2]), ARGV[1])
return 1
