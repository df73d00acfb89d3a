-- ARGV: token, code, message -> 1 recovered, 0 it held nothing
-- Said by whoever saw the holder die, so that nobody waits for the lease to end.
local member = redis.call('HGET', P .. 'tokens', ARGV[1])
if not member then return 0 end
recover(member, ARGV[2], ARGV[3])
return 1
