-- include ledger
-- A job is accepted: stored, listed, and put into the planner's outbox. Answers 0 when it is known already.
-- ARGV 5 fields of the state (JSON), 6 plan, 7 inputs, 8 key of the tenant's index is KEYS[10]
if redis.call('EXISTS', STATE) == 1 then return 0 end
for f, v in pairs(cjson.decode(ARGV[5])) do set(f, v) end
set('st', 'planning'); set('t0', now)
redis.call('HSET', DATA, 'plan', ARGV[6], 'inputs', ARGV[7])
redis.call('ZADD', ACCEPTED, now, JOB)
redis.call('ZADD', KEYS[10], now, JOB)
event('job.accepted')
settle()
return 1
