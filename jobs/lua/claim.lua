-- ARGV: lane, token, lease in ms
--   -> {job, chunk, payload, top_k, crashes, cache, alone, more} or nil when nothing is free
-- `more`: chunks that wait behind it, counted up to MORE.
local lane = ARGV[1]
local MORE = 64

local found = take(lane, ARGV[2], tonumber(ARGV[3]))
if not found then return false end
local more = 0
for _, job in ipairs(redis.call('LRANGE', P .. 'lane:' .. lane, 0, MORE - 1)) do
  more = more + waiting(job)
end
found[#found + 1] = math.min(more, MORE)
return found
