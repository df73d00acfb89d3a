-- ARGV: job, writer, chunks that were accepted -> 1; no more items will come
local job = ARGV[1]
local f = redis.call('HMGET', job_key(job), 'state', 'writer', 'chunks')
if not f[1] then return redis.error_reply('NOJOB there is no such job') end
if (f[2] or '') ~= ARGV[2] then return redis.error_reply('TAKEN another producer sends this job now') end
if tonumber(ARGV[3]) > tonumber(f[3]) then return redis.error_reply('GAP chunk ' .. f[3] .. ' is not here any more') end
even_when_full()
redis.call('HSET', job_key(job), 'sealed', '1', 'complete', '1')
end_if_done(job)
return 1
