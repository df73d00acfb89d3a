-- ARGV: job, writer -> chunks accepted so far
-- From now on only this writer can add to the job: one that was stopped and comes back cannot.
local job = ARGV[1]
local chunks = get(job, 'chunks')
if not chunks then return redis.error_reply('NOJOB there is no such job') end
redis.call('HSET', job_key(job), 'writer', ARGV[2])
return tonumber(chunks)
