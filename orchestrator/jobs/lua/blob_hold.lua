#!lua flags=allow-oom
-- A writer asks before it writes. Answers the place of bytes that are there already, kept for at least as long as asked; else
-- notes that the writer's own place is not booked yet, so that a crash leaves a trace for the sweep.
-- KEYS 1 blob, 2 pending   ARGV 1 kept for (ms), 2 own place or '', 3 how long the writer may take (ms)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'p', 'u')
if known[1] then
  local wanted = now + tonumber(ARGV[1])
  if wanted > tonumber(known[2]) then redis.call('HSET', KEYS[1], 'u', wanted) end
  return known[1]
end
if ARGV[2] ~= '' then redis.call('ZADD', KEYS[2], now + tonumber(ARGV[3]), ARGV[2]) end
return ''
