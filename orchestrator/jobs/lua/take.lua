-- A planner asks for the next accepted job of the shard; it is offered again when it is not planned within the lease.
-- KEYS 1 accepted   ARGV 1 lease (ms), 2 what is added to the time at which the lease of a taken job ends, so that it stands behind all
local clock = redis.call('TIME')
local now, taken = clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(ARGV[2])
local job = redis.call('ZRANGEBYSCORE', KEYS[1], taken, taken + now, 'LIMIT', 0, 1)[1]
  or redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[2], 'LIMIT', 0, 1)[1]
if not job then return '' end
redis.call('ZADD', KEYS[1], taken + now + tonumber(ARGV[1]), job)
return job
