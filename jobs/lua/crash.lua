-- ARGV: token, code, message -> the lane that waits for new tickets, or nil where the token held nothing
-- Said by whoever saw the holder die, so that nobody waits for the lease to end.
local lane = give_back_ahead(ARGV[1])
local member = redis.call('HGET', P .. 'tokens', ARGV[1])
if not member then return lane or false end
recover(member, ARGV[2], ARGV[3], true)
return get(string.match(member, '^(.-)|'), 'lane')
