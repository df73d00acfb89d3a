-- ARGV: space, time to live in ms, most entries, then sha256, result line, ... -> entries now
-- One space for each model, preprocessing and k. The oldest entries go first; a space that nobody adds to goes whole.
local ttl, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local lines, ages = P .. 'cache:' .. ARGV[1], P .. 'cache:' .. ARGV[1] .. ':ages'
local now = now_ms()
for i = 4, #ARGV, 2 do
  redis.call('HSET', lines, ARGV[i], ARGV[i + 1])
  redis.call('ZADD', ages, now, ARGV[i])
end
local gone = redis.call('ZRANGEBYSCORE', ages, '-inf', now - ttl, 'LIMIT', 0, 1000)
local over = redis.call('ZCARD', ages) - #gone - most
if over > 0 then
  for _, sha in ipairs(redis.call('ZRANGE', ages, #gone, #gone + math.min(over, 1000) - 1)) do gone[#gone + 1] = sha end
end
for _, sha in ipairs(gone) do
  redis.call('ZREM', ages, sha)
  redis.call('HDEL', lines, sha)
end
redis.call('PEXPIRE', lines, ttl)
redis.call('PEXPIRE', ages, ttl)
return redis.call('ZCARD', ages)
