-- ARGV: lane, token, lease in ms, how many chunks it holds ahead -> a chunk as claim.lua tells it but for `more`, or nil
-- For later, beside the chunk that the token is at. Not while that one is tried alone, and none that will be. At least as
-- many are left for others as it holds: towards the end of the work nobody waits for one that has taken all of it.
local lane, token, known = ARGV[1], ARGV[2], tonumber(ARGV[4])
local held = redis.call('HGET', P .. 'tokens', token)
if not held or redis.call('HGET', P .. 'isolated', lane) == held then return false end
local member = held_ahead(token)[known + 1] -- of a call whose answer was lost
if not member then
  if behind(lane, false) < known + 2 then return false end
  local job, chunk = pop(lane, false)
  if not chunk then return false end
  member = lend(job, chunk, token, tonumber(ARGV[3]))
  redis.call('RPUSH', ahead_of(token), member)
  -- one that was tried alone before, and waits among the others again, keeps nobody from being tried alone
  if redis.call('HGET', P .. 'isolated', lane) == member then redis.call('HDEL', P .. 'isolated', lane) end
end
return described(lane, member)
