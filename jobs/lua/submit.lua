-- ARGV: job, number of the chunk, payload, writer, then sha256, bytes, ... of its blobs
--   -> {items, chunks} of the job that are queued now, or an error
-- A number that was accepted before is a resend after an uncertain answer: nothing happens.
-- Bytes that are there already need not be sent; NOBLOB says that some are not, and nothing was done.
local job, number, payload = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local f = redis.call('HMGET', job_key(job), 'state', 'sealed', 'chunks', 'queued', 'writer')
if not f[1] then return redis.error_reply('NOJOB there is no such job') end
if (f[5] or '') ~= ARGV[4] then return redis.error_reply('TAKEN another producer sends this job now') end
if f[1] ~= 'in_progress' or f[2] == '1' then return redis.error_reply('CLOSED the job takes no more items') end
local chunks = tonumber(f[3])
if number < chunks then return {tonumber(f[4]), waiting(job)} end
if number > chunks then return redis.error_reply('GAP chunk ' .. chunks .. ' comes first') end
local n = count_items(payload)
if n == 0 then return redis.error_reply('EMPTY a chunk has at least one item') end

local sent = {}
for i = 5, #ARGV, 2 do sent[ARGV[i]] = true end
local missing
each_blob(payload, function(sha)
  if not sent[sha] and redis.call('HEXISTS', job_key(job, 'blobs'), sha) == 0 then missing = sha end
end)
if missing then return redis.error_reply('NOBLOB the bytes of ' .. missing .. ' were not sent') end

redis.call('HSET', job_key(job, 'payload'), ARGV[2], payload)
for i = 5, #ARGV, 2 do redis.call('HSET', job_key(job, 'blobs'), ARGV[i], ARGV[i + 1]) end
hold_blobs(job, payload)
bump(job, 'chunks', 1)
bump(job, 'total', n)
bump(job, 'queued', n)
enqueue(job, ARGV[2], 'queued', false)
return {tonumber(f[4]) + n, waiting(job)}
