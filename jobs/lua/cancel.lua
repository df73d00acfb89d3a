-- ARGV: job -> 1 when nothing of it waits any more, 0 when the call must be repeated
-- What is leased goes on to its end. Nothing else of the job can be claimed from the first call on.
local job = ARGV[1]
local state = get(job, 'state')
if not state then return redis.error_reply('NOJOB there is no such job') end
if state == 'ended' then return 1 end
even_when_full()
if state ~= 'cancelling' then
  redis.call('HSET', job_key(job), 'state', 'cancelling', 'sealed', '1')
  redis.call('SADD', P .. 'cancelling', job)
  redis.call('LREM', P .. 'lane:' .. get(job, 'lane'), 1, job)
  publish(job, 'cancelling')
end
close_waiting(job, 'cancelled', CLOSE_LIMIT)
if waiting(job) > 0 then return 0 end
end_if_done(job)
return 1
