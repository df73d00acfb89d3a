-- Shared by every script of the ledger: each is sent to Redis with this text before it.
-- KEYS[1] is the prefix of all keys. Every script is atomic; times are Redis's own, in milliseconds, so that
-- clocks of workers and producers do not matter.
--
--   <P>jobs                    zset    job -> when it was made, or a millisecond after the one before it
--   <P>ended                   zset    ended job -> when it is forgotten
--   <P>deadlines               zset    job -> when its queued items expire
--   <P>cancelling              set     jobs whose queued chunks are being closed
--   <P>job:<id>                hash    the job: its request, its state and its counts
--   <P>job:<id>:payload        hash    chunk -> header line and one line for each item, while the chunk is open
--   <P>job:<id>:queued         list    chunks that wait; an open chunk is here, in quarantine or leased, never in two
--   <P>job:<id>:quarantine     list    chunks that wait to be tried alone, because workers died with them
--   <P>job:<id>:crashes        hash    chunk -> how often a worker died with it
--   <P>job:<id>:results        stream  one entry for each closed chunk
--   <P>job:<id>:superseded     hash    stream entry -> positions that were retried, comma-separated
--   <P>job:<id>:dead           hash    stream entry -> JSON of a dead letter
--   <P>job:<id>:blobs          hash    sha256 -> bytes
--   <P>job:<id>:blobrefs       hash    sha256 -> open items that need it
--   <P>lanes                   set     lanes where chunks wait
--   <P>lane:<lane>             list    jobs in turn: a job is here while chunks of it wait and it is not cancelled
--   <P>isolated                hash    lane -> "<job>|<chunk>" that was last taken out of quarantine
--   <P>leases                  zset    "<job>|<chunk>" -> when the lease ends
--   <P>holders                 hash    "<job>|<chunk>" -> token of the lease
--   <P>tokens                  hash    token -> "<job>|<chunk>" that its holder is at
--   <P>ahead:<token>           list    "<job>|<chunk>" that it holds besides, for later: they wait under its lease, and
--                                      its death says nothing about them
--   <P>webhooks                zset    job -> when its webhook is called next
--   <P>reconciler              string  name of the one that sweeps; it lapses with it
--   <P>events                  channel JSON lines about jobs that changed their state

local P = KEYS[1]

-- A chunk of several items is halved from this crash on; one may be an innocent kill.
local SPLIT_AT = 2
-- A single item is given up at this crash.
local GIVE_UP_AT = 3
-- Chunks closed in one call, so that Redis is never held up for long.
local CLOSE_LIMIT = 200

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- A Redis that is full refuses a script whose first write may need memory, and no later one. What ends work, and so
-- frees memory, must not be refused: it begins with a write that needs none.
local function even_when_full()
  redis.call('ZREM', P .. 'leases', '')
end

local function job_key(job, part)
  if part then return P .. 'job:' .. job .. ':' .. part end
  return P .. 'job:' .. job
end

local PARTS = {'payload', 'queued', 'quarantine', 'crashes', 'results', 'superseded', 'dead', 'blobs', 'blobrefs'}

local function get(job, field)
  return redis.call('HGET', job_key(job), field)
end

local function bump(job, field, by)
  if by ~= 0 then redis.call('HINCRBY', job_key(job), field, by) end
end

local function count_items(payload)
  local _, lines = string.gsub(payload, '\n', '')
  return lines
end

local function split_lines(text)
  local lines = {}
  for line in string.gmatch(text, '[^\n]+') do lines[#lines + 1] = line end
  return lines
end

local function publish(job, state)
  local counts = {}
  for _, name in ipairs({'total', 'queued', 'leased', 'succeeded', 'failed', 'cancelled', 'expired'}) do
    counts[name] = tonumber(get(job, name) or '0')
  end
  redis.call('PUBLISH', P .. 'events', cjson.encode({job = job, state = state, at_ms = now_ms(), request_counts = counts}))
end

-- -- the queue of a lane ------------------------------------------------------------------------

local function waiting(job)
  return redis.call('LLEN', job_key(job, 'queued')) + redis.call('LLEN', job_key(job, 'quarantine'))
end

-- `list` is 'queued' or 'quarantine'; `front`: before all others of the job.
local function enqueue(job, chunk, list, front)
  redis.call(front and 'LPUSH' or 'RPUSH', job_key(job, list), chunk)
  if waiting(job) == 1 then
    local lane = get(job, 'lane')
    redis.call('RPUSH', P .. 'lane:' .. lane, job)
    redis.call('SADD', P .. 'lanes', lane)
  end
end

-- Chunks in quarantine are taken one at a time in a lane: whatever dies with one of them, it was that one.
local function quarantine_is_free(lane)
  local member = redis.call('HGET', P .. 'isolated', lane)
  return not member or not redis.call('ZSCORE', P .. 'leases', member)
end

-- -- claims ---------------------------------------------------------------------------------------

-- What a claim tells of a chunk: {job, chunk, payload, top_k, crashes, cache, alone}.
local function described(lane, member)
  local job, chunk = string.match(member, '^(.-)|(.*)$')
  local f = redis.call('HMGET', job_key(job), 'top_k', 'cache')
  local alone = redis.call('HGET', P .. 'isolated', lane) == member
  return {job, chunk, redis.call('HGET', job_key(job, 'payload'), chunk), f[1],
    redis.call('HGET', job_key(job, 'crashes'), chunk) or '0', f[2] or '0', alone and '1' or '0'}
end

local function ahead_of(token)
  return P .. 'ahead:' .. token
end

-- What a token holds for later, in its order. Workers of an older version know nothing of that list: what they took back,
-- and others have by now, is passed over.
local function held_ahead(token)
  local found = {}
  for _, member in ipairs(redis.call('LRANGE', ahead_of(token), 0, -1)) do
    if redis.call('HGET', P .. 'holders', member) == token then found[#found + 1] = member end
  end
  return found
end

-- The next chunk that waits in a lane: its job, itself, and whether it was in quarantine; nil where there is none.
-- Jobs of a lane take turns, so that a small job is not stuck behind a large one. `any`: also of those in quarantine.
local function pop(lane, any)
  for _ = 1, redis.call('LLEN', P .. 'lane:' .. lane) do
    local job = redis.call('LPOP', P .. 'lane:' .. lane)
    local chunk = redis.call('LPOP', job_key(job, 'queued'))
    local alone = false
    if not chunk and any and quarantine_is_free(lane) then
      chunk = redis.call('LPOP', job_key(job, 'quarantine'))
      alone = chunk
    end
    if waiting(job) > 0 then redis.call('RPUSH', P .. 'lane:' .. lane, job) end
    if chunk then return job, chunk, alone end
  end
end

-- Chunks that wait in a lane, counted up to MOST_BEHIND. `any`: also those in quarantine.
local MOST_BEHIND = 64
local function behind(lane, any)
  local chunks = 0
  for _, job in ipairs(redis.call('LRANGE', P .. 'lane:' .. lane, 0, MOST_BEHIND - 1)) do
    chunks = chunks + (any and waiting(job) or redis.call('LLEN', job_key(job, 'queued')))
  end
  return math.min(chunks, MOST_BEHIND)
end

-- Put a chunk that waited under a lease; returns its member.
local function lend(job, chunk, token, lease)
  local n = count_items(redis.call('HGET', job_key(job, 'payload'), chunk))
  local member = job .. '|' .. chunk
  redis.call('ZADD', P .. 'leases', now_ms() + lease, member)
  redis.call('HSET', P .. 'holders', member, token)
  bump(job, 'queued', -n)
  bump(job, 'leased', n)
  bump(job, 'claims', 1)
  return member
end

-- The chunk that a token is at from now on, or nil: what it holds ahead, else what waits in the lane. The same token
-- again gets the same chunk: the answer to the first call may have been lost.
local function take(lane, token, lease)
  local held = redis.call('HGET', P .. 'tokens', token)
  if held then return described(lane, held) end
  local member = held_ahead(token)[1]
  if member then
    redis.call('LREM', ahead_of(token), 1, member)
  else
    local job, chunk, alone = pop(lane, true)
    if not chunk then return nil end
    member = lend(job, chunk, token, lease)
    if alone then redis.call('HSET', P .. 'isolated', lane, member) end
  end
  redis.call('HSET', P .. 'tokens', token, member)
  return described(lane, member)
end

-- -- blobs: counted by the open items that need them ----------------------------------------------

-- Place of the quote that ends the custom_id in ["<custom_id>","<reference>", ...; nil in a line of another form.
local function end_of_id(line)
  if string.sub(line, 1, 2) ~= '["' then return nil end
  local at = string.find(line, '["\\]', 3)
  while at and string.sub(line, at, at) == '\\' do at = string.find(line, '["\\]', at + 2) end
  return at
end

local function each_blob(text, fn)
  if not string.find(text, '"blob:', 1, true) then return end
  for line in string.gmatch(text, '[^\n]+') do
    local quote = end_of_id(line)
    local sha = quote and string.match(line, '^,"blob:(%x+)"', quote + 1)
    if sha then fn(sha) end
  end
end

local function hold_blobs(job, payload)
  each_blob(payload, function(sha) redis.call('HINCRBY', job_key(job, 'blobrefs'), sha, 1) end)
end

local function drop_blobs(job, text)
  each_blob(text, function(sha)
    if redis.call('HINCRBY', job_key(job, 'blobrefs'), sha, -1) <= 0 then
      redis.call('HDEL', job_key(job, 'blobrefs'), sha)
      redis.call('HDEL', job_key(job, 'blobs'), sha)
    end
  end)
end

-- -- leases -----------------------------------------------------------------------------------------

-- Returns whether the holder was at it; false where it held it for later.
local function drop_lease(member)
  local token = redis.call('HGET', P .. 'holders', member)
  redis.call('ZREM', P .. 'leases', member)
  redis.call('HDEL', P .. 'holders', member)
  if not token then return true end
  if redis.call('HGET', P .. 'tokens', token) == member then
    redis.call('HDEL', P .. 'tokens', token)
    return true
  end
  redis.call('LREM', ahead_of(token), 0, member)
  return false
end

local function holds(job, chunk, token)
  return redis.call('HGET', P .. 'tokens', token) == job .. '|' .. chunk
end

-- -- the life of a job --------------------------------------------------------------------------------

local function end_if_done(job)
  local f = redis.call('HMGET', job_key(job), 'state', 'sealed', 'queued', 'leased', 'retention_ms', 'webhook')
  if f[1] == 'ended' or f[2] ~= '1' or f[3] ~= '0' or f[4] ~= '0' then return end
  local now = now_ms()
  redis.call('HSET', job_key(job), 'state', 'ended', 'ended_ms', now)
  redis.call('ZREM', P .. 'deadlines', job)
  redis.call('SREM', P .. 'cancelling', job)
  local retention = tonumber(f[5])
  redis.call('ZADD', P .. 'ended', now + retention, job)
  redis.call('PEXPIRE', job_key(job), retention)
  for _, part in ipairs(PARTS) do redis.call('PEXPIRE', job_key(job, part), retention) end
  if f[6] and f[6] ~= '' then redis.call('ZADD', P .. 'webhooks', now, job) end
  publish(job, 'ended')
end

-- Write the result of an open chunk and forget its payload; returns the stream entry. `fields` are the entry's own.
local function close_chunk(job, chunk, payload, fields)
  local entry = redis.call('XADD', job_key(job, 'results'), '*', 'c', chunk, 'i', payload, unpack(fields))
  redis.call('HDEL', job_key(job, 'payload'), chunk)
  redis.call('HDEL', job_key(job, 'crashes'), chunk)
  return entry
end

local function close_unseen(job, chunk, payload, status)
  close_chunk(job, chunk, payload, {'s', status})
  drop_blobs(job, payload)
  bump(job, status, count_items(payload))
end

-- Close up to `limit` waiting chunks of a job as 'cancelled' or 'expired'; returns how many it closed.
local function close_waiting(job, status, limit)
  local closed = 0
  for _, list in ipairs({'queued', 'quarantine'}) do
    while closed < limit do
      local chunk = redis.call('LPOP', job_key(job, list))
      if not chunk then break end
      local payload = redis.call('HGET', job_key(job, 'payload'), chunk)
      bump(job, 'queued', -count_items(payload))
      close_unseen(job, chunk, payload, status)
      closed = closed + 1
    end
  end
  if waiting(job) == 0 then redis.call('LREM', P .. 'lane:' .. get(job, 'lane'), 1, job) end
  return closed
end

-- -- recovery -------------------------------------------------------------------------------------------

-- A leased chunk waits again, before all others of its job. What is being cancelled ends here.
local function put_back(job, chunk, payload, list)
  local n = count_items(payload)
  bump(job, 'leased', -n)
  if get(job, 'state') == 'cancelling' then
    close_unseen(job, chunk, payload, 'cancelled')
    end_if_done(job)
  else
    bump(job, 'queued', n)
    enqueue(job, chunk, list, true)
  end
end

-- What a token holds for later waits again, unharmed and in its order; returns the lane, nil where there is nothing.
local function give_back_ahead(token)
  local members = held_ahead(token)
  local lane
  for i = #members, 1, -1 do
    local job, chunk = string.match(members[i], '^(.-)|(.*)$')
    drop_lease(members[i])
    put_back(job, chunk, redis.call('HGET', job_key(job, 'payload'), chunk), 'queued')
    lane = get(job, 'lane')
  end
  redis.call('DEL', ahead_of(token))
  return lane
end

local function give_up(job, chunk, payload, code, message, crashes)
  local lines = split_lines(payload)
  local _, halvings = string.gsub(chunk, '%.', '')
  local entry = close_chunk(job, chunk, payload, {'r', cjson.encode({code, message})})
  redis.call('HSET', job_key(job, 'dead'), entry, cjson.encode({
    code = code, message = message, header = lines[1], item = lines[2], deliveries = crashes + halvings,
    at_ms = now_ms()}))
  bump(job, 'leased', -1)
  bump(job, 'failed', 1)
  end_if_done(job)
end

local function halve(job, chunk, payload, list)
  local lines = split_lines(payload)
  local n = #lines - 1
  local middle = math.floor(n / 2)
  redis.call('HDEL', job_key(job, 'payload'), chunk)
  redis.call('HDEL', job_key(job, 'crashes'), chunk)
  local halves = {{chunk .. '.1', middle + 2, n + 1}, {chunk .. '.0', 2, middle + 1}}
  for _, half in ipairs(halves) do
    local part = lines[1] .. '\n' .. table.concat(lines, '\n', half[2], half[3])
    redis.call('HSET', job_key(job, 'payload'), half[1], part)
    redis.call('HSET', job_key(job, 'crashes'), half[1], SPLIT_AT - 1)
    put_back(job, half[1], part, list)
  end
end

-- A chunk whose worker died or stayed silent past its lease: back to wait, in halves, or given up.
-- `seen`: its own process was seen to die. Else a whole worker fell silent, with all that it held, and one chunk of
-- those may be to blame: after its second time a chunk goes into quarantine, and only there it can be given up.
local function recover(member, code, message, seen)
  local job, chunk = string.match(member, '^(.-)|(.*)$')
  local was_at_it = drop_lease(member)
  local payload = redis.call('HGET', job_key(job, 'payload'), chunk)
  if not payload then return end -- the job was deleted
  if not was_at_it then return put_back(job, chunk, payload, 'queued') end
  local n = count_items(payload)
  local crashes = redis.call('HINCRBY', job_key(job, 'crashes'), chunk, 1)
  local alone = redis.call('HGET', P .. 'isolated', get(job, 'lane')) == member
  local list = (seen or crashes < SPLIT_AT) and 'queued' or 'quarantine'
  bump(job, 'recovered', 1)
  if n == 1 and crashes >= GIVE_UP_AT and (seen or alone) and get(job, 'state') ~= 'cancelling' then
    give_up(job, chunk, payload, code, message, crashes)
  elseif n > 1 and crashes >= SPLIT_AT then
    halve(job, chunk, payload, list)
  else
    put_back(job, chunk, payload, list)
  end
end
