-- ARGV: job, chunk, token, succeeded, failed, results, digest, cache hits, postponed positions (comma-separated, from 0),
--   then, to go on with the next chunk of a lane: lane, lease in ms, 1 where the turn is over, and queues of the broker
--   that go first
--   -> {1 recorded or 0 too late: dropped, the next chunk as claim.lua tells it but for `more`, or nil}
-- Results are one line for each item, in the payload's order. What is postponed has none: it waits again as a chunk.
local job, chunk, token = ARGV[1], ARGV[2], ARGV[3]
local succeeded, failed, results = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
-- Entries looked through for one that this very call has written before, when its answer was lost.
local RECENT = 200

local function is_recorded()
  for _, entry in ipairs(redis.call('XREVRANGE', job_key(job, 'results'), '+', '-', 'COUNT', RECENT)) do
    local fields = entry[2]
    for i = 1, #fields, 2 do
      if fields[i] == 't' and fields[i + 1] == token and fields[2] == chunk then return true end
    end
  end
  return false
end

-- The payload of the items that have results, and that of those that are postponed.
local function part(payload, positions)
  local postponed = {}
  for position in string.gmatch(positions, '%d+') do postponed[tonumber(position)] = true end
  local lines = split_lines(payload)
  local done, rest = {lines[1]}, {lines[1]}
  for i = 2, #lines do
    local into = postponed[i - 2] and rest or done
    into[#into + 1] = lines[i]
  end
  return table.concat(done, '\n'), table.concat(rest, '\n')
end

-- The answer. The same token takes the next chunk, unless something waits that goes first; then what it holds ahead waits
-- again. What an earlier answer, which was lost, has given it comes again whatever waits; one that is too late has ended,
-- or will be told to end.
local function goes_on(recorded)
  if not ARGV[10] or recorded == 0 or ARGV[12] == '1' then return false end
  for i = 13, #ARGV do
    if redis.call('LLEN', ARGV[i]) > 0 then return false end
  end
  return true
end

local function done(recorded)
  local held = redis.call('HGET', P .. 'tokens', token)
  if held and ARGV[10] then return {recorded, described(ARGV[10], held)} end
  if goes_on(recorded) then return {recorded, take(ARGV[10], token, tonumber(ARGV[11])) or false} end
  if not held then give_back_ahead(token) end
  return {recorded, false}
end

even_when_full()
if not holds(job, chunk, token) then
  if is_recorded() then return done(1) end
  if redis.call('EXISTS', job_key(job)) == 1 then bump(job, 'late_finishes', 1) end
  return done(0)
end
local payload = redis.call('HGET', job_key(job, 'payload'), chunk)
local rest
if (ARGV[9] or '') ~= '' then payload, rest = part(payload, ARGV[9]) end
local n = count_items(payload)
if n == 0 or succeeded + failed ~= n then -- a chunk of which nothing is done would be put off for ever
  return redis.error_reply('MISCOUNT ' .. succeeded .. ' + ' .. failed .. ' results for ' .. n .. ' items')
end
drop_lease(job .. '|' .. chunk)
close_chunk(job, chunk, payload, {'r', results, 'm', ARGV[7], 't', token})
if failed == 0 then
  drop_blobs(job, payload)
elseif string.find(payload, '"blob:', 1, true) then -- failed items keep their bytes, so that they can be retried
  local lines, outcomes = split_lines(payload), split_lines(results)
  for i = 2, #lines do
    if string.sub(outcomes[i - 1], 1, 2) ~= '["' then drop_blobs(job, lines[i]) end
  end
end
bump(job, 'leased', -n)
bump(job, 'succeeded', succeeded)
bump(job, 'failed', failed)
bump(job, 'cache_hits', tonumber(ARGV[8] or '0'))
if rest then
  bump(job, 'put_off', 1)
  redis.call('HSET', job_key(job, 'payload'), chunk .. '+', rest)
  put_back(job, chunk .. '+', rest, 'queued')
end
end_if_done(job)
return done(1)
