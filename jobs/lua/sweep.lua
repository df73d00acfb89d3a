-- ARGV: message of crashed_worker, then, where only one of many is to sweep: its name, and for how many ms it stays so
--   -> {recovered, lane, chunks that can be claimed, lane, chunks, ...}, or nil where another one was elected
local now = now_ms()
even_when_full()
if ARGV[2] then
  local elected = redis.call('GET', P .. 'reconciler')
  if elected and elected ~= ARGV[2] then return false end
  redis.call('SET', P .. 'reconciler', ARGV[2], 'PX', ARGV[3])
end
local silent = redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, CLOSE_LIMIT)
for _, member in ipairs(silent) do recover(member, 'crashed_worker', ARGV[1], false) end

-- What remains to be closed of expired and of cancelled jobs, a bounded number of chunks in all.
local budget = CLOSE_LIMIT
local function close(job, status, key, remove)
  if redis.call('EXISTS', job_key(job)) == 0 then
    redis.call(remove, P .. key, job)
    return
  end
  redis.call('HSET', job_key(job), 'sealed', '1')
  budget = budget - close_waiting(job, status, budget)
  end_if_done(job)
end
for _, job in ipairs(redis.call('SMEMBERS', P .. 'cancelling')) do close(job, 'cancelled', 'cancelling', 'SREM') end
for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', now, 'LIMIT', 0, CLOSE_LIMIT)) do
  close(job, 'expired', 'deadlines', 'ZREM')
end

-- Jobs whose keys have gone by themselves.
for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'ended', '-inf', now, 'LIMIT', 0, CLOSE_LIMIT)) do
  if redis.call('EXISTS', job_key(job)) == 0 then
    redis.call('ZREM', P .. 'jobs', job)
    redis.call('ZREM', P .. 'ended', job)
  end
end

local reply = {#silent}
for _, lane in ipairs(redis.call('SMEMBERS', P .. 'lanes')) do
  local jobs = redis.call('LRANGE', P .. 'lane:' .. lane, 0, -1)
  local queued, quarantined = 0, 0
  for _, job in ipairs(jobs) do
    queued = queued + redis.call('LLEN', job_key(job, 'queued'))
    quarantined = quarantined + redis.call('LLEN', job_key(job, 'quarantine'))
  end
  if quarantined > 0 and quarantine_is_free(lane) then queued = queued + 1 end
  if #jobs == 0 then redis.call('SREM', P .. 'lanes', lane) end
  reply[#reply + 1] = lane
  reply[#reply + 1] = queued
end
return reply
