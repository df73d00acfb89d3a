-- ARGV: 'due', limit -> {job, url, job, url, ...} whose time has come; what nobody delivered within a day fails
-- ARGV: 'claim', job, first wait, longest wait (ms), most attempts -> {url, attempt, end of the job in ms} or nil
--   It is due again after the wait, so that another process tries when this one dies.
-- ARGV: 'done', job, end of the job in ms -> 1
local what, job = ARGV[1], ARGV[2]
local queue = P .. 'webhooks'
local GIVE_UP_MS = 86400000

local function leave(id, state)
  redis.call('ZREM', queue, id)
  if state then redis.call('HSET', job_key(id), 'webhook_state', state) end
end

if what == 'due' then
  local found = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue, '-inf', now_ms(), 'LIMIT', 0, tonumber(job))) do
    local f = redis.call('HMGET', job_key(id), 'webhook', 'ended_ms', 'state')
    if not f[1] or f[3] ~= 'ended' then -- deleted, or retried: its next end brings it back
      leave(id)
    elseif now_ms() - tonumber(f[2]) > GIVE_UP_MS then
      leave(id, 'failed')
    else
      found[#found + 1] = id
      found[#found + 1] = f[1]
    end
  end
  return found
end

local f = redis.call('HMGET', job_key(job), 'webhook', 'ended_ms', 'state', 'webhook_attempts', 'webhook_for')
if what == 'done' then
  if f[2] == ARGV[3] then leave(job, 'delivered') end
  return 1
end

local due = redis.call('ZSCORE', queue, job)
if not due or tonumber(due) > now_ms() or f[3] ~= 'ended' then return false end
local attempt = (f[5] == f[2] and tonumber(f[4]) or 0) + 1
if attempt > tonumber(ARGV[5]) then
  leave(job, 'failed')
  return false
end
local wait = math.min(tonumber(ARGV[3]) * 2 ^ (attempt - 1), tonumber(ARGV[4]))
redis.call('ZADD', queue, now_ms() + wait, job)
redis.call('HSET', job_key(job), 'webhook_attempts', attempt, 'webhook_for', f[2], 'webhook_state', 'trying')
return {f[1], attempt, f[2]}
