-- ARGV: job, stream entry, positions (comma-separated, from 0), expires in ms
--   -> items queued again; 0 where another call was first
-- Only what failed can be retried. The old lines stay where they are, so that cursors hold, and readers pass them over
-- as superseded; a dead letter of theirs goes.
local job, entry, positions = ARGV[1], ARGV[2], ARGV[3]
local state = get(job, 'state')
if not state then return redis.error_reply('NOJOB there is no such job') end
if state == 'cancelling' then return redis.error_reply('CLOSED the job is being cancelled') end

local found = redis.call('XRANGE', job_key(job, 'results'), entry, entry)[1]
if not found then return redis.error_reply('NOENTRY there is no such result') end
local fields = {}
for i = 1, #found[2], 2 do fields[found[2][i]] = found[2][i + 1] end
local lines, outcomes = split_lines(fields['i']), split_lines(fields['r'] or '')

local done = redis.call('HGET', job_key(job, 'superseded'), entry) or ''
local taken = {}
for position in string.gmatch(done, '%d+') do taken[position] = true end
local chosen = {lines[1]}
for position in string.gmatch(positions, '%d+') do
  if taken[position] then return 0 end
  taken[position] = true
  local at = tonumber(position) + 1
  if string.sub(outcomes[at] or '', 1, 2) ~= '["' then
    return redis.error_reply('NOENTRY only failed items can be retried, not ' .. position .. ' of ' .. entry)
  end
  chosen[#chosen + 1] = lines[at + 1]
end
local n = #chosen - 1
if n == 0 then return 0 end

redis.call('HSET', job_key(job, 'superseded'), entry, done == '' and positions or (done .. ',' .. positions))
redis.call('HDEL', job_key(job, 'dead'), entry)
local chunk = 'r' .. redis.call('HINCRBY', job_key(job), 'retries', 1)
redis.call('HSET', job_key(job, 'payload'), chunk, table.concat(chosen, '\n'))
bump(job, 'failed', -n)
bump(job, 'queued', n)
if state == 'ended' then
  local deadline = now_ms() + tonumber(ARGV[4])
  redis.call('HSET', job_key(job), 'state', 'in_progress', 'deadline_ms', deadline)
  redis.call('HDEL', job_key(job), 'ended_ms')
  redis.call('ZADD', P .. 'deadlines', deadline, job)
  redis.call('ZREM', P .. 'ended', job)
  redis.call('PERSIST', job_key(job))
  for _, part in ipairs(PARTS) do redis.call('PERSIST', job_key(job, part)) end
  publish(job, 'in_progress')
end
enqueue(job, chunk, 'queued', false)
return n
