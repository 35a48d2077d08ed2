#!lua flags=allow-oom
-- How a call ended that was let pass. KEYS circuits
-- ARGV 1 token, 2 failures that open, 3 open for ms, 4 kept for ms, 5 reason, 6.. outcome and generation of each circuit
-- Answers what changed: 'OPEN', 'CLOSED' or '' each. A generation that is over says nothing about the one that is.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local changed = {}
for i, key in ipairs(KEYS) do
  local outcome, generation = ARGV[4 + 2 * i], ARGV[5 + 2 * i]
  local v = redis.call('HMGET', key, 'g', 'u', 'p', 'n')
  local is_open = tonumber(v[2] or 0) > 0
  changed[i] = ''
  if (v[1] or '0') == generation and (not is_open or v[3] == ARGV[1]) then
    if outcome == 'failed' then
      local failures = tonumber(v[4] or 0) + 1
      redis.call('HSET', key, 'n', failures, 'r', ARGV[5])
      if is_open or failures >= tonumber(ARGV[2]) then
        redis.call('HSET', key, 'u', string.format('%d', now + tonumber(ARGV[3])), 'g', generation + 1)
        redis.call('HDEL', key, 'p', 'l')
        changed[i] = 'OPEN'
      end
      redis.call('PEXPIRE', key, ARGV[4])
    elseif outcome == 'succeeded' and is_open then
      redis.call('HSET', key, 'n', 0, 'g', generation + 1)
      redis.call('HDEL', key, 'u', 'p', 'l', 'r')
      changed[i] = 'CLOSED'
    elseif outcome == 'succeeded' and tonumber(v[4] or 0) > 0 then
      redis.call('HSET', key, 'n', 0)
    elseif is_open then
      redis.call('HDEL', key, 'p', 'l')
    end
  end
end
return changed
