-- ARGV: token -> the lane that waits for a new ticket, or nil where the token held nothing
local lane = give_back_ahead(ARGV[1])
local member = redis.call('HGET', P .. 'tokens', ARGV[1])
if not member then return lane or false end
local job, chunk = string.match(member, '^(.-)|(.*)$')
lane = get(job, 'lane')
local alone = redis.call('HGET', P .. 'isolated', lane) == member
drop_lease(member)
put_back(job, chunk, redis.call('HGET', job_key(job, 'payload'), chunk), alone and 'quarantine' or 'queued')
return lane
