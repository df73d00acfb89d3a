-- ARGV: message of crashed_worker -> {recovered, lane, queued chunks, lane, queued chunks, ...}
local now = now_ms()
local silent = redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, CLOSE_LIMIT)
for _, member in ipairs(silent) do recover(member, 'crashed_worker', ARGV[1]) end

for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', now, 'LIMIT', 0, 10)) do
  if redis.call('EXISTS', job_key(job)) == 1 then
    redis.call('HSET', job_key(job), 'sealed', '1')
    if close_queued(job, 'expired', CLOSE_LIMIT) then end_if_done(job) end
  else
    redis.call('ZREM', P .. 'deadlines', job)
  end
end

for _, job in ipairs(redis.call('SMEMBERS', P .. 'cancelling')) do
  if redis.call('EXISTS', job_key(job)) == 1 then
    if close_queued(job, 'cancelled', CLOSE_LIMIT) then end_if_done(job) end
  else
    redis.call('SREM', P .. 'cancelling', job)
  end
end

for _, job in ipairs(redis.call('ZRANGE', P .. 'jobs', 0, 9)) do
  if redis.call('EXISTS', job_key(job)) == 0 then redis.call('ZREM', P .. 'jobs', job) end
end

local reply = {#silent}
for _, lane in ipairs(redis.call('SMEMBERS', P .. 'lanes')) do
  local queued = 0
  for _, job in ipairs(redis.call('LRANGE', P .. 'lane:' .. lane, 0, -1)) do
    queued = queued + redis.call('LLEN', job_key(job, 'queued'))
  end
  reply[#reply + 1] = lane
  reply[#reply + 1] = queued
end
return reply
