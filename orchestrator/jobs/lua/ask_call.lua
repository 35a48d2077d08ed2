#!lua flags=allow-oom
-- A call of a model is counted for a job, once by its id. Answers 1 when it was new.   KEYS 1 state, 2 data   ARGV 1 id, 2 the call (JSON)
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HSETNX', KEYS[2], 'uc:' .. ARGV[1], 1) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'u:' .. redis.call('HINCRBY', KEYS[1], 'rq_calls', 1), ARGV[2])
if redis.call('HGET', KEYS[2], 'sent_id') == ARGV[1] then redis.call('HDEL', KEYS[2], 'sent', 'sent_id') end
return 1
