-- ARGV: lease in ms, then token, token, ... -> the tokens that hold nothing any more
local until_ms = now_ms() + tonumber(ARGV[1])
local lost = {}
-- A Redis that is full refuses a script whose first write may need memory. Renewing needs none, so free nothing first.
redis.call('ZREM', P .. 'leases', '')
for i = 2, #ARGV do
  local member = redis.call('HGET', P .. 'tokens', ARGV[i])
  if member then redis.call('ZADD', P .. 'leases', 'XX', until_ms, member) else lost[#lost + 1] = ARGV[i] end
end
return lost
