-- ARGV: lane, token, lease in ms -> {job, chunk, payload, top_k, crashes, cache} or nil when nothing waits
-- Jobs of a lane take turns, so that a small job is not stuck behind a large one.
-- The same token again gets the same chunk: the answer to the first call may have been lost.
local lane, token, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function answer(job, chunk)
  local f = redis.call('HMGET', job_key(job), 'top_k', 'cache')
  return {job, chunk, redis.call('HGET', job_key(job, 'payload'), chunk), f[1],
    redis.call('HGET', job_key(job, 'crashes'), chunk) or '0', f[2] or '0'}
end

local held = redis.call('HGET', P .. 'tokens', token)
if held then
  local job, chunk = string.match(held, '^(.-)|(.*)$')
  if redis.call('HEXISTS', job_key(job, 'payload'), chunk) == 1 then return answer(job, chunk) end
  drop_lease(held) -- the job was deleted
end

while true do
  local job = redis.call('LPOP', P .. 'lane:' .. lane)
  if not job then return false end
  local chunk = redis.call('LPOP', job_key(job, 'queued'))
  if chunk then -- none where the job was deleted
    if redis.call('LLEN', job_key(job, 'queued')) > 0 then redis.call('RPUSH', P .. 'lane:' .. lane, job) end
    local n = count_items(redis.call('HGET', job_key(job, 'payload'), chunk))
    local member = job .. '|' .. chunk
    redis.call('ZADD', P .. 'leases', now_ms() + lease, member)
    redis.call('HSET', P .. 'holders', member, token)
    redis.call('HSET', P .. 'tokens', token, member)
    bump(job, 'queued', -n)
    bump(job, 'leased', n)
    bump(job, 'claims', 1)
    return answer(job, chunk)
  end
end
