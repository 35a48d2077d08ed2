#!lua flags=allow-oom
-- What a model answered is remembered for as long as the request may be planned again; of many only the latest.
-- KEYS 1 state, 2 data   ARGV 1 digest of what was asked, 2 reply (JSON), 3 how many are kept
local st = redis.call('HGET', KEYS[1], 'st')  -- once it has ended nobody asks again
if st ~= 'planning' and st ~= 'running' or redis.call('HSETNX', KEYS[2], 'm:' .. ARGV[1], ARGV[2]) == 0 then return 0 end
local n = redis.call('HINCRBY', KEYS[1], 'rq_replies', 1)
redis.call('HSET', KEYS[2], 'mn:' .. n, ARGV[1])
local old = n - tonumber(ARGV[3])
if old > 0 then
  local digest = redis.call('HGET', KEYS[2], 'mn:' .. old)
  redis.call('HDEL', KEYS[2], 'mn:' .. old)
  if digest then redis.call('HDEL', KEYS[2], 'm:' .. digest) end
end
return 1
