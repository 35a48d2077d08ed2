#!lua flags=allow-oom
-- Lets one call pass all of some circuits, or none. KEYS circuits   ARGV 1 token of the call, 2 lease of a probe in ms, 3 kept for ms
-- Answers {0, which it probes, generation of each}, or what refuses: {which, milliseconds, failures, whether it is probed, reason}.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local answer, probed = {0, ''}, {}
for i, key in ipairs(KEYS) do
  local v = redis.call('HMGET', key, 'g', 'u', 'p', 'l', 'n', 'r')
  local till = tonumber(v[2] or 0)
  if till > now then return {i, till - now, tonumber(v[5]), 0, v[6]} end
  if till > 0 then
    local lease = tonumber(v[4] or 0)
    if v[3] and v[3] ~= ARGV[1] and lease > now then return {i, lease - now, tonumber(v[5]), 1, v[6]} end
    probed[#probed + 1] = i
  end
  answer[i + 2] = v[1] or '0'
end
for _, i in ipairs(probed) do
  redis.call('HSET', KEYS[i], 'p', ARGV[1], 'l', string.format('%d', now + tonumber(ARGV[2])))
  redis.call('PEXPIRE', KEYS[i], ARGV[3])
end
answer[2] = table.concat(probed, ',')
return answer
