#!lua flags=allow-oom
-- The planner of a request is alive. Answers 1, or 0 when the request is not its own any more: it was cancelled, or another one took it.
-- KEYS 1 state, 2 accepted   ARGV 1 job, 2 token, 3 lease (ms), 4 what is added to the end of the lease of a taken job
local v = redis.call('HMGET', KEYS[1], 'st', 'rq', 'rq_token')
local mine = (v[1] == 'planning' and v[2] == 'p' or v[1] == 'running' and v[2] == 'a') and v[3] == ARGV[2]
if not mine then return 0 end
local clock = redis.call('TIME')
local until_ = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'rq_lease', until_)
redis.call('ZADD', KEYS[2], tonumber(ARGV[4]) + until_, ARGV[1])
return 1
