-- A planner asks for the next accepted job of the shard; it is offered again when it is not planned within the lease.
-- KEYS 1 accepted   ARGV 1 lease (ms)
local job = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
if not job then return '' end
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[1], clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1]), job)
return job
