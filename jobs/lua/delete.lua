-- ARGV: job -> 1 deleted, 0 there was none; whoever holds one of its chunks finds out when it finishes
local job = ARGV[1]
local lane = get(job, 'lane')
if not lane then return 0 end
for _, member in ipairs(redis.call('ZRANGE', P .. 'leases', 0, -1)) do
  if string.sub(member, 1, #job + 1) == job .. '|' then drop_lease(member) end
end
redis.call('LREM', P .. 'lane:' .. lane, 0, job)
redis.call('ZREM', P .. 'jobs', job)
redis.call('ZREM', P .. 'ended', job)
redis.call('ZREM', P .. 'deadlines', job)
redis.call('SREM', P .. 'cancelling', job)
redis.call('ZREM', P .. 'webhooks', job)
redis.call('UNLINK', job_key(job))
for _, part in ipairs(PARTS) do redis.call('UNLINK', job_key(job, part)) end
publish(job, 'deleted')
return 1
