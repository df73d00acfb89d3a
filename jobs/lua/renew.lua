-- ARGV: lease in ms, then token, token, ... -> the tokens that are at no chunk any more
local until_ms = now_ms() + tonumber(ARGV[1])
local lost = {}
even_when_full()
for i = 2, #ARGV do
  local member = redis.call('HGET', P .. 'tokens', ARGV[i])
  if member then redis.call('ZADD', P .. 'leases', 'XX', until_ms, member) else lost[#lost + 1] = ARGV[i] end
  for _, later in ipairs(held_ahead(ARGV[i])) do
    redis.call('ZADD', P .. 'leases', 'XX', until_ms, later)
  end
end
return lost
