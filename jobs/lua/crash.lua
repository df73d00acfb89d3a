-- ARGV: token, code, message -> the lane that waits for new tickets, or nil where the token held nothing
-- Said by whoever saw the holder die, so that nobody waits for the lease to end.
local member = redis.call('HGET', P .. 'tokens', ARGV[1])
if not member then return false end
recover(member, ARGV[2], ARGV[3], true)
return get(string.match(member, '^(.-)|'), 'lane')
