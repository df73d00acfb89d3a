-- ARGV: job, stream entry, positions (comma-separated, from 0), payload of those items, expires in ms
--   -> items queued again; 0 where another call was first
-- The old lines stay where they are, so that cursors hold, and readers pass them over as superseded.
local job, entry, positions, payload = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('EXISTS', job_key(job)) == 0 then return redis.error_reply('NOJOB there is no such job') end
local done = redis.call('HGET', job_key(job, 'superseded'), entry) or ''
local taken = {}
for position in string.gmatch(done, '%d+') do taken[position] = true end
for position in string.gmatch(positions, '%d+') do
  if taken[position] then return 0 end
end
redis.call('HSET', job_key(job, 'superseded'), entry, done == '' and positions or (done .. ',' .. positions))
local n = count_items(payload)
local chunk = 'r' .. redis.call('HINCRBY', job_key(job), 'retries', 1)
redis.call('HSET', job_key(job, 'payload'), chunk, payload)
bump(job, 'failed', -n)
bump(job, 'queued', n)
if get(job, 'state') == 'ended' then
  local deadline = now_ms() + tonumber(ARGV[5])
  redis.call('HSET', job_key(job), 'state', 'in_progress', 'deadline_ms', deadline)
  redis.call('HDEL', job_key(job), 'ended_ms')
  redis.call('ZADD', P .. 'deadlines', deadline, job)
  redis.call('PERSIST', job_key(job))
  for _, part in ipairs(PARTS) do redis.call('PERSIST', job_key(job, part)) end
  publish(job, 'in_progress')
end
enqueue(job, chunk, false)
return n
