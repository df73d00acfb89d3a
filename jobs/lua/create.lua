-- ARGV: job, expires in ms, then field, value, ...  -> 1 made, 0 it is already there
local job = ARGV[1]
if redis.call('EXISTS', job_key(job)) == 1 then return 0 end
local now = now_ms()
redis.call('HSET', job_key(job), 'state', 'in_progress', 'sealed', '0', 'created_ms', now, 'chunks', 0, 'total', 0,
  'queued', 0, 'leased', 0, 'succeeded', 0, 'failed', 0, 'cancelled', 0, 'expired', 0,
  'claims', 0, 'recovered', 0, 'late_finishes', 0, 'retries', 0, unpack(ARGV, 3))
local deadline = now + tonumber(ARGV[2])
redis.call('HSET', job_key(job), 'deadline_ms', deadline)
-- Jobs are listed in the order in which they were made, also those of one millisecond, or after a clock set back.
local newest = redis.call('ZREVRANGE', P .. 'jobs', 0, 0, 'WITHSCORES')[2]
redis.call('ZADD', P .. 'jobs', math.max(now, (tonumber(newest) or 0) + 1), job)
redis.call('ZADD', P .. 'deadlines', deadline, job)
redis.call('SADD', P .. 'lanes', get(job, 'lane'))
publish(job, 'in_progress')
return 1
