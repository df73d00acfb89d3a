-- Shared by every script of the ledger: each is sent to Redis with this text before it.
-- KEYS[1] is the prefix of all keys. Every script is atomic; times are Redis's own, in milliseconds, so that
-- clocks of workers and producers do not matter.
--
--   <P>jobs                    zset    job -> created
--   <P>deadlines               zset    job -> when its queued items expire
--   <P>cancelling              set     jobs whose queued chunks are being closed
--   <P>job:<id>                hash    the job: its request, its state and its counts
--   <P>job:<id>:payload        hash    chunk -> header line and one line for each item, while the chunk is open
--   <P>job:<id>:queued         list    chunks that wait; a chunk is here or has a lease, never both
--   <P>job:<id>:crashes        hash    chunk -> how often a worker died with it
--   <P>job:<id>:results        stream  one entry for each closed chunk
--   <P>job:<id>:superseded     hash    stream entry -> positions that were retried, comma-separated
--   <P>job:<id>:dead           hash    "<chunk>:<position>" -> JSON of a dead letter
--   <P>job:<id>:blobs          hash    sha256 -> bytes
--   <P>job:<id>:blobrefs       hash    sha256 -> open items that need it
--   <P>lanes                   set     lanes ever used
--   <P>lane:<lane>             list    jobs with queued chunks, in turn: a job is here while its queued list is not empty
--   <P>leases                  zset    "<job>|<chunk>" -> when the lease ends
--   <P>holders                 hash    "<job>|<chunk>" -> token of the lease
--   <P>tokens                  hash    token -> "<job>|<chunk>"
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

local function job_key(job, part)
  if part then return P .. 'job:' .. job .. ':' .. part end
  return P .. 'job:' .. job
end

local PARTS = {'payload', 'queued', 'crashes', 'results', 'superseded', 'dead', 'blobs', 'blobrefs'}

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
  redis.call('PUBLISH', P .. 'events', cjson.encode({job = job, state = state}))
end

-- -- the queue of a lane ------------------------------------------------------------------------

local function enqueue(job, chunk, front)
  local length = redis.call(front and 'LPUSH' or 'RPUSH', job_key(job, 'queued'), chunk)
  if length == 1 then redis.call('RPUSH', P .. 'lane:' .. get(job, 'lane'), job) end
end

local function leave_lane_if_empty(job)
  if redis.call('LLEN', job_key(job, 'queued')) == 0 then
    redis.call('LREM', P .. 'lane:' .. get(job, 'lane'), 1, job)
  end
end

-- -- blobs: counted by the open items that need them ----------------------------------------------

local function each_blob(text, fn)
  if string.find(text, '"blob:', 1, true) then
    for sha in string.gmatch(text, '"blob:(%x+)"') do fn(sha) end
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

local function drop_lease(member)
  local token = redis.call('HGET', P .. 'holders', member)
  redis.call('ZREM', P .. 'leases', member)
  redis.call('HDEL', P .. 'holders', member)
  if token then redis.call('HDEL', P .. 'tokens', token) end
end

local function holds(job, chunk, token)
  return redis.call('HGET', P .. 'holders', job .. '|' .. chunk) == token
end

-- -- the life of a job --------------------------------------------------------------------------------

local function end_if_done(job)
  local f = redis.call('HMGET', job_key(job), 'state', 'sealed', 'queued', 'leased', 'retention_ms')
  if f[1] == 'ended' or f[2] ~= '1' or f[3] ~= '0' or f[4] ~= '0' then return end
  redis.call('HSET', job_key(job), 'state', 'ended', 'ended_ms', now_ms())
  redis.call('ZREM', P .. 'deadlines', job)
  redis.call('SREM', P .. 'cancelling', job)
  local retention = tonumber(f[5])
  redis.call('PEXPIRE', job_key(job), retention)
  for _, part in ipairs(PARTS) do redis.call('PEXPIRE', job_key(job, part), retention) end
  publish(job, 'ended')
end

-- Write the result of an open chunk and forget its payload. `fields` are the entry's own.
local function close_chunk(job, chunk, payload, fields)
  redis.call('XADD', job_key(job, 'results'), '*', 'c', chunk, 'i', payload, unpack(fields))
  redis.call('HDEL', job_key(job, 'payload'), chunk)
  redis.call('HDEL', job_key(job, 'crashes'), chunk)
end

-- Close up to `limit` queued chunks of a job as 'cancelled' or 'expired'. True when none is left.
local function close_queued(job, status, limit)
  for _ = 1, limit do
    local chunk = redis.call('LPOP', job_key(job, 'queued'))
    if not chunk then break end
    local payload = redis.call('HGET', job_key(job, 'payload'), chunk)
    local n = count_items(payload)
    close_chunk(job, chunk, payload, {'s', status})
    drop_blobs(job, payload)
    bump(job, 'queued', -n)
    bump(job, status, n)
  end
  leave_lane_if_empty(job)
  return redis.call('LLEN', job_key(job, 'queued')) == 0
end

-- -- recovery -------------------------------------------------------------------------------------------

local function give_up(job, chunk, payload, code, message, crashes)
  local line = split_lines(payload)[2]
  close_chunk(job, chunk, payload, {'r', cjson.encode({code, message})})
  redis.call('HSET', job_key(job, 'dead'), chunk .. ':0', cjson.encode({
    code = code, message = message, item = line, header = split_lines(payload)[1], deliveries = crashes,
    at_ms = now_ms()}))
  bump(job, 'leased', -1)
  bump(job, 'failed', 1)
end

local function halve(job, chunk, payload)
  local lines = split_lines(payload)
  local n = #lines - 1
  local middle = math.floor(n / 2)
  local halves = {
    {chunk .. '.1', table.concat(lines, '\n', middle + 2, n + 1)},
    {chunk .. '.0', table.concat(lines, '\n', 2, middle + 1)},
  }
  redis.call('HDEL', job_key(job, 'payload'), chunk)
  redis.call('HDEL', job_key(job, 'crashes'), chunk)
  for _, half in ipairs(halves) do
    redis.call('HSET', job_key(job, 'payload'), half[1], lines[1] .. '\n' .. half[2])
    redis.call('HSET', job_key(job, 'crashes'), half[1], SPLIT_AT - 1)
    enqueue(job, half[1], true)
  end
end

-- A chunk whose worker died or stayed silent past its lease: back to the queue, in halves, or given up.
local function recover(member, code, message)
  local job, chunk = string.match(member, '^(.-)|(.*)$')
  drop_lease(member)
  local payload = redis.call('HGET', job_key(job, 'payload'), chunk)
  if not payload then return end -- the job was deleted
  local n = count_items(payload)
  local crashes = redis.call('HINCRBY', job_key(job, 'crashes'), chunk, 1)
  bump(job, 'recovered', 1)
  if n == 1 and crashes >= GIVE_UP_AT then
    give_up(job, chunk, payload, code, message, crashes)
    end_if_done(job)
    return
  end
  bump(job, 'leased', -n)
  bump(job, 'queued', n)
  if n > 1 and crashes >= SPLIT_AT then halve(job, chunk, payload) else enqueue(job, chunk, true) end
end
