#!lua flags=allow-oom
-- Extends the leases of running calls. Answers 1 for each that goes on, 0 for each that was cancelled or overtaken.
-- KEYS 1 leases, 2.. state of the job of each call   ARGV 1 lease (ms), then job, call, attempt of each
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local out = {}
for i = 2, #KEYS do
  local at = 2 + (i - 2) * 3
  local job, call, attempt = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local v = redis.call('HMGET', KEYS[i], 'st', 'c:' .. call)
  local st, a = string.match(v[2] or '', '^(%a)|(%d+)|')
  if (v[1] == 'running' or v[1] == 'waiting') and st == 'r' and a == attempt then
    redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[1]), job .. '|' .. call .. '|' .. attempt)
    out[#out + 1] = 1
  else out[#out + 1] = 0 end
end
return out
