-- ARGV: lane, token, lease in ms -> {job, chunk, payload, top_k, crashes, cache, alone} or nil when nothing is free
-- Jobs of a lane take turns, so that a small job is not stuck behind a large one.
-- The same token again gets the same chunk: the answer to the first call may have been lost.
local lane, token, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function answer(job, chunk)
  local f = redis.call('HMGET', job_key(job), 'top_k', 'cache')
  local alone = redis.call('HGET', P .. 'isolated', lane) == job .. '|' .. chunk
  return {job, chunk, redis.call('HGET', job_key(job, 'payload'), chunk), f[1],
    redis.call('HGET', job_key(job, 'crashes'), chunk) or '0', f[2] or '0', alone and '1' or '0'}
end

local held = redis.call('HGET', P .. 'tokens', token)
if held then return answer(string.match(held, '^(.-)|(.*)$')) end

for _ = 1, redis.call('LLEN', P .. 'lane:' .. lane) do
  local job = redis.call('LPOP', P .. 'lane:' .. lane)
  local chunk = redis.call('LPOP', job_key(job, 'queued'))
  local alone = false
  if not chunk and quarantine_is_free(lane) then
    chunk = redis.call('LPOP', job_key(job, 'quarantine'))
    alone = chunk
  end
  if waiting(job) > 0 then redis.call('RPUSH', P .. 'lane:' .. lane, job) end
  if chunk then
    local n = count_items(redis.call('HGET', job_key(job, 'payload'), chunk))
    local member = job .. '|' .. chunk
    if alone then redis.call('HSET', P .. 'isolated', lane, member) end
    redis.call('ZADD', P .. 'leases', now_ms() + lease, member)
    redis.call('HSET', P .. 'holders', member, token)
    redis.call('HSET', P .. 'tokens', token, member)
    bump(job, 'queued', -n)
    bump(job, 'leased', n)
    bump(job, 'claims', 1)
    return answer(job, chunk)
  end
end
return false
