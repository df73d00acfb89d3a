-- ARGV: job -> 1; no more items will come
local job = ARGV[1]
if redis.call('EXISTS', job_key(job)) == 0 then return redis.error_reply('NOJOB there is no such job') end
redis.call('HSET', job_key(job), 'sealed', '1')
end_if_done(job)
return 1
