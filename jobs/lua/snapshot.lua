-- ARGV: job -> {job's hash, open chunks, waiting chunks, {leased chunk, items, chunk, items, ...}, last stream entry,
--              {entry, retried positions, ...}}
-- One moment of a job's books, for the audit; what is long is counted and not listed.
local job = ARGV[1]
local hash = redis.call('HGETALL', job_key(job))
if #hash == 0 then return redis.error_reply('NOJOB there is no such job') end
local leased = {}
for _, member in ipairs(redis.call('ZRANGE', P .. 'leases', 0, -1)) do
  if string.sub(member, 1, #job + 1) == job .. '|' then
    local chunk = string.sub(member, #job + 2)
    local payload = redis.call('HGET', job_key(job, 'payload'), chunk)
    leased[#leased + 1] = chunk
    leased[#leased + 1] = payload and count_items(payload) or 0
  end
end
local last = redis.call('XREVRANGE', job_key(job, 'results'), '+', '-', 'COUNT', 1)[1]
return {hash, redis.call('HLEN', job_key(job, 'payload')), waiting(job), leased, last and last[1] or '0-0',
  redis.call('HGETALL', job_key(job, 'superseded'))}
