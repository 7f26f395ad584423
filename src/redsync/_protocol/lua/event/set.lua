-- Add a signal.
--
-- KEYS  signals, open, sets
-- ARGV  request
-- Reply 1, or 0 if this request had done it before.
-- include event/common.lua

if call('ZSCORE', sets, ARGV[1]) then
  return 0
end
put(ARGV[1])
return 1
