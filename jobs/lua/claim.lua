-- ARGV: lane, token, lease in ms
--   -> {job, chunk, payload, top_k, crashes, cache, alone, more} or nil when nothing is free
-- `more`: chunks that wait behind it, as far as they are counted.
local found = take(ARGV[1], ARGV[2], tonumber(ARGV[3]))
if not found then return false end
found[#found + 1] = behind(ARGV[1], true)
return found
