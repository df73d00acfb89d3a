-- ARGV: token -> 1 given back unharmed, 0 it held nothing
local member = redis.call('HGET', P .. 'tokens', ARGV[1])
if not member then return 0 end
local job, chunk = string.match(member, '^(.-)|(.*)$')
drop_lease(member)
local payload = redis.call('HGET', job_key(job, 'payload'), chunk)
if not payload then return 0 end
local n = count_items(payload)
bump(job, 'leased', -n)
bump(job, 'queued', n)
enqueue(job, chunk, true)
return 1
