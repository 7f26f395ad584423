-- A worker's turn: it tells what became of the timers that it ran, and takes those that are due.
--
-- KEYS  see common.lua; memo: of the worker; the topics of the worker
-- ARGV  worker, turn, whether this turn may have been taken already (1 or 0), how many timers to
--       take at most, how many bytes of payloads, mode ("stay": it will come back in time, "woken":
--       the same, by a token, "go": somebody else has to watch), longest wait, number of outcomes;
--       for each outcome: ordinal, fence, what ("completed", "dead", "again" after a time, "back"
--       unstarted, "cut" off in the middle), time, member, error; for each topic: its name, lease,
--       attempts
-- Reply {now, time until it has to come back or -1, timers in the timeline without a record,
--        heads, bodies}; an outcome of a run that is not this worker's any more changes nothing;
--       heads has a line for each timer: ordinal, fence, due, attempt (-1 - attempt if this worker has
--       it already: it may be 0), length of the member and of the payload or -1; bodies has members
--       and payloads, end to end
-- include timers/common.lua

local BROKEN = 100000 -- by how much a promise may be late
local SPARE = 300000 -- how much later than the one who promised another one looks
local worker, turn, again, limit, budget, mode, slice, outcomes =
  ARGV[1], ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6],
  tonumber(ARGV[7]), tonumber(ARGV[8])
local me = string.sub(worker, 1, 8)
local topics = (#KEYS - 6) / 2
local options = 8 + 6 * outcomes

local function option(ordinal, number)
  return ARGV[options + 3 * (ordinal - 1) + number]
end

-- This turn answers all tokens.  After a delete, writing goes on even if there is no memory left.
for ordinal = 1, topics do
  call('DEL', wake(ordinal))
end

-- What became of those that ran

local finished = {} -- members to be removed
local entries = {} -- their entries, by ordinal

local function next_instant(ordinal, member, r)
  local instant = r.due + tonumber(string.match(r.every, '^%d+'))
  call('ZADD', timeline, seconds(instant), member)
  rearm(ordinal, member, r, instant)
end

local function finish(ordinal, member, r)
  if r.every ~= '' then
    next_instant(ordinal, member, r)
  else
    finished[#finished + 1] = member
    entries[ordinal] = entries[ordinal] or {}
    table.insert(entries[ordinal], r.seq .. member)
  end
end

local function remove_finished()
  if #finished > 0 then
    call('ZREM', timeline, unpack(finished))
    call('HDEL', payloads, unpack(finished))
    call('HDEL', state, unpack(finished))
    for ordinal, list in pairs(entries) do
      call('ZREM', due(ordinal), unpack(list))
    end
  end
  finished, entries = {}, {}
end

local function settle(ordinal, member, r, score, what, after, why)
  if score and micros(score) ~= r.due then -- armed again by redis-timers
    r.every = ''
    rearm(ordinal, member, r, micros(score))
  elseif r.rearmed then
    -- The new arming stands, whatever became of the old one.
    r.fence, r.rearmed = NONE, false
    place(ordinal, member, r, r.due)
  elseif what == 'again' then
    r.fence = NONE
    place(ordinal, member, r, now + after)
  elseif what == 'back' or what == 'cut' then
    r.fence, r.attempts, r.cut = NONE, r.attempts - 1, r.cut or what == 'cut'
    place(ordinal, member, r, r.due)
  else
    if what == 'dead' then
      bury(member, r, why)
    end
    finish(ordinal, member, r)
  end
end

if outcomes > 0 then
  local members = {}
  for i = 1, outcomes do
    members[i] = ARGV[7 + 6 * i]
  end
  -- Only one of a member's fences can be the one in the record, so each is changed once at most.
  local records = call('HMGET', state, unpack(members))
  local scores = call('ZMSCORE', timeline, unpack(members))
  for i = 1, outcomes do
    local ordinal, fence, what, after, member, why = unpack(ARGV, 3 + 6 * i, 8 + 6 * i)
    local r = records[i] and parse(records[i])
    if r and r.fence == fence then
      settle(tonumber(ordinal), member, r, scores[i], what, tonumber(after), why)
    end
  end
  remove_finished()
end

-- What is due

local heads, bodies, taken = {}, {}, {}

-- Hand it out; `own` if it is this worker's already.
local function give(ordinal, member, r, own)
  local payload = call('HGET', payloads, member)
  local length = payload and #payload or -1
  heads[#heads + 1] =
    table.concat(
      { ordinal, r.fence, digits(r.due), own and -1 - r.attempts or r.attempts, #member, length }, ' '
    )
  bodies[#bodies + 1] = member .. (payload or '')
  taken[#taken + 1] = { due(ordinal), r.fence, member, own }
  budget = budget - math.max(length, 0)
end

-- The same timers again, if the answer to this very turn was lost.
local function repeated()
  local last = call('GET', memo)
  last = last and cmsgpack.unpack(last)
  if not last or last[1] ~= turn then
    return false
  end
  local ordinals = {}
  for ordinal = 1, topics do
    ordinals[due(ordinal)] = ordinal
  end
  for _, each in ipairs(last[2]) do
    local record = call('HGET', state, each[3])
    local r = record and parse(record)
    if r and r.fence == each[2] and not r.rearmed and ordinals[each[1]] then
      give(ordinals[each[1]], each[3], r, each[4])
    end
  end
  return true
end

-- Move the due time of a recurring timer over what was missed; false if it is in the future then.
local function catch_up(ordinal, member, r)
  local every, policy = string.match(r.every, '^(%d+) (%a+)')
  every = tonumber(every)
  if policy == 'all' or r.attempts > 0 then
    return true
  end
  local instant = r.due + math.floor((now - r.due) / every) * every
  if policy == 'skip' and now - instant > math.min(every / 2, 60000000) then
    instant = instant + every
  end
  if instant ~= r.due then
    call('ZADD', timeline, seconds(instant), member)
    if instant > now then
      rearm(ordinal, member, r, instant)
    end
    r.due = instant
  end
  return instant <= now
end

-- Whether a timer whose time has come is to be run now; else it is put where it belongs.
local function runnable(ordinal, member, r, score)
  if not score then -- removed by redis-timers
    r.every = ''
    finish(ordinal, member, r)
    return false
  end
  if micros(score) ~= r.due then -- armed again by redis-timers
    r.every = ''
    rearm(ordinal, member, r, micros(score))
  end
  if r.rearmed then
    r.rearmed, r.attempts = false, 0
  end
  if r.due > now then
    call('ZADD', due(ordinal), seconds(r.due), r.seq .. member)
    return false
  end
  if r.attempts >= tonumber(option(ordinal, 3)) then
    bury(member, r, 'the lease of the last attempt ran out')
    finish(ordinal, member, r)
    return false
  end
  return r.every == '' or catch_up(ordinal, member, r)
end

local function take(ordinal, most)
  local list = call('ZRANGEBYSCORE', due(ordinal), '-inf', seconds(now), 'LIMIT', 0, most)
  if #list == 0 then
    return 0
  end
  local members, states, leases = {}, {}, {}
  for i, entry in ipairs(list) do
    members[i] = string.sub(entry, 17)
  end
  local records = call('HMGET', state, unpack(members))
  local scores, fence = call('ZMSCORE', timeline, unpack(members)), mint(#list)
  local lease, count = now + option(ordinal, 2), 0
  for i, entry in ipairs(list) do
    if budget <= 0 then
      break
    end
    local member, r = members[i], records[i] and parse(records[i])
    if not r or r.seq ~= string.sub(entry, 1, 16) then
      call('ZREM', due(ordinal), entry) -- left over from a loss of data
    elseif r.fence ~= NONE and r.holder == me then
      -- Its lease is over, as this worker was held up or cut off, but nobody else has it: go on.
      local at = r.rearmed and math.max(lease, r.due) or lease
      leases[#leases + 1], leases[#leases + 2] = seconds(at), entry
      give(ordinal, member, r, true)
      count = count + 1
    elseif runnable(ordinal, member, r, scores[i]) then
      r.fence, r.attempts, r.holder = digits(fence + i - 1), r.attempts + 1, me
      states[#states + 1], states[#states + 2] = member, written(r)
      leases[#leases + 1], leases[#leases + 2] = seconds(lease), r.seq .. member
      give(ordinal, member, r)
      count = count + 1
    end
  end
  if #states > 0 then
    call('HSET', state, unpack(states))
  end
  if count > 0 then
    call('ZADD', due(ordinal), unpack(leases))
  end
  remove_finished()
  return count
end

if not (again and repeated()) and limit > 0 then
  -- First a fair share for each topic, then what is left for those that have more.
  local share, left, more = math.ceil(limit / topics), limit, {}
  for ordinal = 1, topics do
    local most = math.min(share, left)
    local count = most > 0 and take(ordinal, most) or 0
    left = left - count
    if count == share then
      more[#more + 1] = ordinal
    end
  end
  for _, ordinal in ipairs(more) do
    if left > 0 then
      left = left - take(ordinal, left)
    end
  end
  if #taken > 0 then
    call('SET', memo, cmsgpack.pack({ turn, taken }), 'PX', 2 * MEMORY)
  end
end

-- Who comes next: one worker promises to, for each topic, and the others rely on that.  (Woken all
-- at the same instant, each of them would ask for the same timer.)

local wait = -1
local room = #taken < limit and mode ~= 'go'

local function watch(ordinal)
  local field, first = 'w:' .. option(ordinal, 1), head(ordinal)
  local promise = call('HGET', meta, field)
  local at, who = 0, nil
  if promise then
    at, who = tonumber(string.sub(promise, 1, 16)), string.sub(promise, 17)
    if not at then
      at, who = 0, nil -- somebody else's
    end
  end
  if not first then
    if who == worker then
      call('HDEL', meta, field)
    end
    return
  end
  local covered = who and who ~= worker and mode ~= 'woken' and at <= first + 1000
    and now <= at + BROKEN
  if room then
    local mine = first
    if covered and first > now then
      mine = first + SPARE + tonumber(string.sub(worker, 1, 2), 16) * 1000
    else
      local new = digits(math.min(math.max(first, now), now + slice)) .. worker
      if new ~= promise then
        call('HSET', meta, field, new)
      end
    end
    if wait < 0 or mine < wait then
      wait = mine
    end
  else
    if mode == 'go' and first <= now then
      wait = now
    end
    if who == worker then
      call('HDEL', meta, field)
    end
    if not covered and first <= now + HORIZON and call('LLEN', wake(ordinal)) == 0 then
      call('RPUSH', wake(ordinal), '1')
      call('PEXPIRE', wake(ordinal), MEMORY)
    end
  end
end

for ordinal = 1, topics do
  watch(ordinal)
end

local unindexed = call('ZCARD', timeline) - call('HLEN', state) + call('HEXISTS', state, '')
return {
  digits(now), wait < 0 and -1 or math.max(0, wait - now), unindexed,
  table.concat(heads, '\n'), table.concat(bodies),
}
