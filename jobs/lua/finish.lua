-- ARGV: job, chunk, token, succeeded, failed, results, digest -> 1 recorded, 0 too late: dropped
-- Results are one line for each item, in the payload's order.
local job, chunk, token = ARGV[1], ARGV[2], ARGV[3]
local succeeded, failed, results = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
if not holds(job, chunk, token) then
  if redis.call('EXISTS', job_key(job)) == 1 then bump(job, 'late_finishes', 1) end
  return 0
end
local payload = redis.call('HGET', job_key(job, 'payload'), chunk)
if not payload then -- the job was deleted
  drop_lease(job .. '|' .. chunk)
  return 0
end
local n = count_items(payload)
if succeeded + failed ~= n then
  return redis.error_reply('MISCOUNT ' .. succeeded .. ' + ' .. failed .. ' results for ' .. n .. ' items')
end
drop_lease(job .. '|' .. chunk)
close_chunk(job, chunk, payload, {'r', results, 'm', ARGV[7]})
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
end_if_done(job)
return 1
