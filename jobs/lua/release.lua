-- ARGV: token -> the lane that waits for a new ticket, or nil where the token held nothing
local member = redis.call('HGET', P .. 'tokens', ARGV[1])
if not member then return false end
local job, chunk = string.match(member, '^(.-)|(.*)$')
local alone = redis.call('HGET', P .. 'isolated', get(job, 'lane')) == member
drop_lease(member)
put_back(job, chunk, redis.call('HGET', job_key(job, 'payload'), chunk), alone and 'quarantine' or 'queued')
return get(job, 'lane')
