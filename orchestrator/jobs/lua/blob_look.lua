#!lua flags=allow-oom
-- The sweep looks at a file whose time has come. What no job names any more leaves the books; its bytes are deleted afterwards, from
-- the list of places that no book names. Whoever stores the same content meanwhile gets a place of its own.
-- Answers the bytes that left the books, -1 when it stays.
-- KEYS 1 blob, 2 its jobs, 3 due, 4 pending, 5 files of the tenant, 6 bytes by tenant
-- ARGV 1 tenant, 2 sha256, 3 look again in (ms), 4 1: the upload's lifetime ends now, 5.. jobs that are gone
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local member = ARGV[1] .. '|' .. ARGV[2]
for i = 5, #ARGV do redis.call('ZREM', KEYS[2], ARGV[i]) end
local v = redis.call('HMGET', KEYS[1], 'p', 'u', 's')
if not v[1] then redis.call('ZREM', KEYS[3], member); return -1 end
if ARGV[4] == '1' then v[2] = 0; redis.call('HSET', KEYS[1], 'u', now) end
if redis.call('ZCARD', KEYS[2]) > 0 then redis.call('ZADD', KEYS[3], now + tonumber(ARGV[3]), member); return -1 end
if tonumber(v[2]) > now then redis.call('ZADD', KEYS[3], v[2], member); return -1 end
redis.call('ZADD', KEYS[4], 0, v[1])
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], member)
redis.call('ZREM', KEYS[5], ARGV[2])
if redis.call('HINCRBY', KEYS[6], ARGV[1], -v[3]) <= 0 then redis.call('HDEL', KEYS[6], ARGV[1]) end
return tonumber(v[3])
