#!lua flags=allow-oom
-- Bytes that lie in the store are booked. Answers the place that counts: that of whoever was first; '' when the writer took so
-- long that the sweep may have deleted its bytes.
-- KEYS 1 blob, 2 pending, 3 due, 4 files of the tenant, 5 bytes by tenant, 6 jobs of the blob
-- ARGV 1 place, 2 kept for (ms), 3 size, 4 media type, 5 name, 6 kind (f file, v value), 7 tenant, 8 sha256, 9 job that names it or '',
--      10 1: the writer's own bytes, 0: those that `hold` found, which may have been struck off since
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local place, wanted = ARGV[1], now + tonumber(ARGV[2])
local known = redis.call('HMGET', KEYS[1], 'p', 'u')
if known[1] then
  if wanted > tonumber(known[2]) then redis.call('HSET', KEYS[1], 'u', wanted) end
  if known[1] ~= place then redis.call('ZADD', KEYS[2], 'XX', 0, place) end
  place = known[1]
else
  if ARGV[10] ~= '1' or redis.call('ZREM', KEYS[2], place) == 0 then return '' end
  redis.call('HSET', KEYS[1], 'p', place, 'u', wanted, 's', ARGV[3], 'm', ARGV[4], 'n', ARGV[5], 'c', now, 'k', ARGV[6])
  redis.call('ZADD', KEYS[3], wanted, ARGV[7] .. '|' .. ARGV[8])
  redis.call('HINCRBY', KEYS[5], ARGV[7], ARGV[3])
end
if ARGV[6] == 'f' then  -- the same bytes may be a value of a job, and be uploaded again under another name
  redis.call('HSET', KEYS[1], 'k', 'f', 'm', ARGV[4], 'n', ARGV[5])
  redis.call('ZADD', KEYS[4], 'NX', now, ARGV[8])
end
if ARGV[9] ~= '' then redis.call('ZADD', KEYS[6], now, ARGV[9]) end
return place
