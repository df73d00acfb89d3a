-- ARGV: job, number of the chunk, payload -> items that are queued now, or an error
-- A number that was accepted before is a resend after an uncertain answer: nothing happens.
local job, number, payload = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local f = redis.call('HMGET', job_key(job), 'state', 'sealed', 'chunks', 'queued')
if not f[1] then return redis.error_reply('NOJOB there is no such job') end
if f[1] ~= 'in_progress' or f[2] == '1' then return redis.error_reply('CLOSED the job takes no more items') end
local chunks = tonumber(f[3])
if number < chunks then return tonumber(f[4]) end
if number > chunks then return redis.error_reply('GAP chunk ' .. chunks .. ' comes first') end
local n = count_items(payload)
redis.call('HSET', job_key(job, 'payload'), ARGV[2], payload)
hold_blobs(job, payload)
bump(job, 'chunks', 1)
bump(job, 'total', n)
bump(job, 'queued', n)
enqueue(job, ARGV[2], false)
return tonumber(f[4]) + n
