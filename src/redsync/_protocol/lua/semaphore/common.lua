-- What the scripts of the semaphore share; docs/protocol.md describes the states of a slot.
--
-- KEYS: free, held, meta.  `seen` (the highest fence the caller knows) is set by the script before.
-- meta has 7 fixed fields: count version fence grace ttl keep recovery; and for each slot in
-- circulation `s<slot>`: "fence" if nobody has it, "fence owner ttl since identifier" if granted.
local free, held, meta = KEYS[1], KEYS[2], KEYS[3]
local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local pushed = 0

-- tostring() would write a fence as 1.76e+15.
local function text(number)
  return string.format('%.0f', number)
end

local function parse(record)
  local fence, owner, ttl = string.match(record, '^(%d+) (%S+) (%d+)')
  return tonumber(fence or record) or 0, owner, tonumber(ttl)
end

-- A count that somebody else has written must not keep the server busy.
local function checked(count)
  count = tonumber(count)
  if not (count and count >= 1 and count <= 4096) then
    error('the count is none')
  end
  return count
end

local function circulating()
  return call('HLEN', meta) - 7
end

-- Fences rise also after the data was lost: the clock and what the caller has seen outlive it.
local function mint(last)
  return text(math.max(tonumber(last) + 1, micros, seen + 1))
end

local function push(slot, last, keep)
  local fence = mint(last)
  call('HSET', meta, 'fence', fence, 's' .. slot, fence)
  if call('RPUSH', free, slot .. ':' .. fence) == 1 then
    call('PEXPIRE', free, keep)
  end
  pushed = pushed + 1
end

-- Give what is free new fences, in the same order: another server may have granted it already, and
-- this one, its replica, not have heard of it.
local function refresh()
  local tokens = call('LRANGE', free, 0, -1)
  call('DEL', free)
  for _, token in ipairs(tokens) do
    local slot, fence = string.match(token, '^(%d+):(%d+)$')
    if slot and call('HGET', meta, 's' .. slot) == fence then
      local m = call('HMGET', meta, 'fence', 'keep')
      push(slot, m[1], m[2])
    end
  end
  pushed = 0
end

-- Put slots into circulation until there are as many as permits.
local function fill()
  local m = call('HMGET', meta, 'count', 'keep')
  local lacking = checked(m[1]) - circulating()
  local slot = 0
  while lacking > 0 do
    if call('HEXISTS', meta, 's' .. slot) == 0 then
      push(slot, call('HGET', meta, 'fence'), m[2])
      lacking = lacking - 1
    end
    slot = slot + 1
  end
end

-- Free a slot whose lease the caller has removed.
local function back(slot)
  local m = call('HMGET', meta, 'count', 'fence', 'recovery', 'keep', 's' .. slot)
  if now < tonumber(m[3]) then
    -- Earlier holders may still believe in any slot: nothing is pushed before the recovery ends.
    call('HSET', meta, 's' .. slot, text(parse(m[5] or '0')))
    call('ZADD', held, m[3], slot)
    call('PEXPIRE', held, m[4])
  elseif tonumber(slot) < tonumber(m[1]) and circulating() <= tonumber(m[1]) then
    push(slot, m[2], m[4])
  else
    call('HDEL', meta, 's' .. slot)
    fill()
  end
end

-- Return what (slot, fence, owner) names, if it still names it: sent twice, or late, it does nothing.
local function give_back(slot, fence, owner)
  local record = call('HGET', meta, 's' .. slot)
  if not record then
    return false
  end
  local known, holder = parse(record)
  if known ~= tonumber(fence) or holder and holder ~= owner then
    return false
  end
  -- ZREM is the first write on purpose: a server that is out of memory refuses a script that begins
  -- with a command that may grow, and only such a one.
  if call('ZREM', held, slot) == 0 then
    -- The token may be in the list again, after a failover that lost its pop.
    call('LREM', free, 0, slot .. ':' .. fence)
  end
  back(slot)
  return true
end

-- Deadlines further away than a lease is long: the clock was set back.
local function pull_in_deadlines(ttl, grace)
  local recovery = math.min(tonumber(call('HGET', meta, 'recovery')), now + ttl)
  call('HSET', meta, 'recovery', text(recovery))
  local leases = call('ZRANGE', held, 0, -1, 'WITHSCORES')
  for i = 1, #leases, 2 do
    local _, owner, lease = parse(call('HGET', meta, 's' .. leases[i]) or '0')
    local latest = owner and now + lease or math.max(now + grace, recovery)
    if tonumber(leases[i + 1]) > latest then
      call('ZADD', held, text(latest), leases[i])
    end
  end
  return recovery
end

-- A slot that is neither free nor held was popped and not claimed yet, or its keys were evicted.
local function lease_missing(grace, recovery)
  local accounted = {}
  for _, token in ipairs(call('LRANGE', free, 0, -1)) do
    accounted[string.match(token, '^%d+') or ''] = true
  end
  for _, slot in ipairs(call('ZRANGE', held, 0, -1)) do
    accounted[slot] = true
  end
  local fields = call('HGETALL', meta)
  for i = 1, #fields, 2 do
    local slot = string.match(fields[i], '^s(%d+)$')
    if slot and not accounted[slot] then
      local _, owner, lease = parse(fields[i + 1])
      local deadline = owner and now + lease or math.max(now + grace, recovery)
      call('ZADD', held, text(deadline), slot)
      if not owner then
        -- No change of the record, but one that everybody sees who watches meta.
        call('HSET', meta, fields[i], fields[i + 1])
      end
    end
  end
end

-- Take back what ran out, and find what is missing.
local function reap()
  local m = call('HMGET', meta, 'grace', 'ttl', 'recovery', 'keep')
  local grace, ttl, recovery = tonumber(m[1]), tonumber(m[2]), tonumber(m[3])
  for _, slot in ipairs(call('ZRANGEBYSCORE', held, '-inf', now)) do
    call('ZREM', held, slot)
    if string.match(slot, '^%d+$') then
      back(slot)
    end
  end
  local last = call('ZRANGE', held, -1, -1, 'WITHSCORES')
  if last[2] and tonumber(last[2]) > now + math.max(ttl, grace) or recovery > now + ttl then
    recovery = pull_in_deadlines(ttl, grace)
  end
  if call('LLEN', free) + call('ZCARD', held) ~= circulating() then
    lease_missing(grace, recovery)
    call('PEXPIRE', held, m[4])
  end
  if now >= recovery then
    fill()
  end
end

-- After the data was lost: every slot leased to nobody, until each earlier holder had the time to
-- take its seat back or to find out that its lease ran out.
local function recreate(count, version, grace, ttl, keep)
  call('DEL', free, held, meta)
  local recovery = text(now + ttl)
  call('HSET', meta, 'count', count, 'version', version, 'fence', text(seen), 'grace', grace,
    'ttl', text(ttl), 'keep', text(keep), 'recovery', recovery)
  for slot = 0, count - 1 do
    call('HSET', meta, 's' .. slot, '0')
    call('ZADD', held, recovery, slot)
  end
end

-- Keep the keys for as long as the most patient client wants them, and the longest lease in mind.
local function keep_alive(ttl, keep)
  local m = call('HMGET', meta, 'ttl', 'keep')
  keep = math.max(keep, tonumber(m[2]))
  call('PEXPIRE', meta, text(keep))
  call('PEXPIRE', held, text(keep))
  call('PEXPIRE', free, text(keep))
  if ttl > tonumber(m[1]) or keep > tonumber(m[2]) then
    call('HSET', meta, 'ttl', text(math.max(ttl, tonumber(m[1]))), 'keep', text(keep))
  end
end

local function set_count(count, version)
  call('HSET', meta, 'count', count, 'version', version)
  local tokens = call('LRANGE', free, 0, -1)
  local surplus = circulating() - count
  for i = #tokens, 1, -1 do
    local slot = string.match(tokens[i], '^%d+') or 'none'
    -- First whatever is numbered beyond the new count, or is none; fill() makes up for it.
    if (tonumber(slot) or count) >= count then
      call('LREM', free, 1, tokens[i])
      call('HDEL', meta, 's' .. slot)
      tokens[i] = false
      surplus = surplus - 1
    end
  end
  for i = #tokens, 1, -1 do
    if tokens[i] and surplus > 0 then
      call('LREM', free, 1, tokens[i])
      call('HDEL', meta, 's' .. string.match(tokens[i], '^%d+'))
      surplus = surplus - 1
    end
  end
  if now >= tonumber(call('HGET', meta, 'recovery')) then
    fill()
  end
end

-- Milliseconds until the next lease ends, -1 if there is none.
local function nearest()
  local first = call('ZRANGE', held, 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, tonumber(first[2]) - now) or -1
end

-- An answer: what is particular to it, then what every client wants to know.
local function answer(...)
  local reply = { ... }
  for _, value in ipairs(call('HMGET', meta, 'count', 'version', 'fence', 'grace', 'ttl')) do
    reply[#reply + 1] = value
  end
  return reply
end
