-- What the scripts of the timers share; docs/protocol.md describes the life of a timer.
--
-- KEYS: timeline, payloads, state, meta, dead, memo, then for each topic of the call: due, wake.
-- A topic is named by its ordinal: 1 is that of the first pair.  memo is this request's alone.
-- Times are microseconds of the server's clock, as are numbers: 16 digits each, until the year 2286.
local call = redis.call
local timeline, payloads, state, meta, dead, memo =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local NONE = '0000000000000000'
local HORIZON = 20000000 -- more than a wait of a worker: what is due later it finds by itself
local OVERDUE = 100000 -- whoever was to come has not
local MEMORY = 60000 -- ms in which a request may be sent again

local function due(ordinal)
  return KEYS[5 + 2 * ordinal]
end

local function wake(ordinal)
  return KEYS[6 + 2 * ordinal]
end

-- tostring() would write 1.76e+15.
local function digits(number)
  return string.format('%016d', number)
end

local function seconds(micros)
  local text = digits(micros)
  return string.sub(text, 1, 10) .. '.' .. string.sub(text, 11)
end

-- Never earlier than the score says; scores from elsewhere may be anything.
local function micros(score)
  local value = tonumber(score)
  if value <= 0 then
    return 0
  elseif value >= 8589934591 then
    return 8589934591000000
  end
  -- No rounding: adding a half is not exact from 2112 on.  The product is at most one too few.
  local whole = math.floor(value * 1000000)
  return whole / 1000000 < value and whole + 1 or whole
end

-- A record: seq (which arming), fence (which run; NONE: not running), due, mark ('1': armed again
-- while it runs, '2': a run was cut off, which is no attempt, 0: neither), attempts, length of the
-- topic, holder (the worker of the last run, as far as 8 digits tell), and for recurring ones "every
-- policy".
local function parse(text)
  if #text < 65 or not string.find(string.sub(text, 1, 57), '^%d+$')
    or #text > 65 and not string.find(text, '^[1-9]%d* %a+$', 66)
  then
    return nil -- somebody else's: as if there were none
  end
  return {
    seq = string.sub(text, 1, 16),
    fence = string.sub(text, 17, 32),
    due = tonumber(string.sub(text, 33, 48)),
    rearmed = string.sub(text, 49, 49) == '1',
    cut = string.sub(text, 49, 49) == '2',
    attempts = tonumber(string.sub(text, 50, 53)),
    length = string.sub(text, 54, 57),
    holder = string.sub(text, 58, 65),
    every = string.sub(text, 66),
  }
end

local function written(r)
  return r.seq .. r.fence .. digits(r.due) .. (r.rearmed and '1' or r.cut and '2' or '0')
    .. string.format('%04d', r.attempts) .. r.length .. (r.holder or '00000000') .. r.every
end

-- The first new number after the last one.  They rise also if the clock is set back, or data is lost.
local function succeeding(last)
  last = string.match(last or '', '^%d+$')
  last = last and #last == 16 and tonumber(last) or 0
  return math.max(last + 1, now)
end

-- The first of so many new numbers.
local function mint(count)
  local first = succeeding(call('HGET', state, ''))
  call('HSET', state, '', digits(first + count - 1))
  return first
end

local function head(ordinal)
  local entry = call('ZRANGE', due(ordinal), 0, 0, 'WITHSCORES')
  return entry[2] and micros(entry[2]) or nil
end

-- Leave a token that wakes one worker of the topic, unless it knows of something earlier.
-- `before` was the head before the change, `at` is the new instant.
local function nudge(ordinal, before, at)
  if at <= now + HORIZON and (not before or at < before or before < now - OVERDUE)
    and call('LLEN', wake(ordinal)) == 0
  then
    call('RPUSH', wake(ordinal), '1')
    call('PEXPIRE', wake(ordinal), MEMORY)
  end
end

-- Have somebody look at it at an instant.
local function place(ordinal, member, r, at)
  local before = head(ordinal)
  call('HSET', state, member, written(r))
  call('ZADD', due(ordinal), seconds(at), r.seq .. member)
  nudge(ordinal, before, at)
end

-- A new arming of a timer that has a record.
local function rearm(ordinal, member, r, at)
  call('ZREM', due(ordinal), r.seq .. member)
  r.seq, r.fence, r.due, r.attempts = digits(mint(1)), NONE, at, 0
  r.rearmed, r.cut = false, false
  place(ordinal, member, r, at)
end

local function bury(member, r, why)
  local payload = call('HGET', payloads, member)
  local header = { r.length, digits(r.due), r.attempts, digits(now), payload and 1 or 0, #why }
  call('HSET', dead, member, table.concat(header, ' ') .. '\n' .. why .. (payload or ''))
end
