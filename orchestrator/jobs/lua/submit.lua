-- include ledger
-- A job is accepted: stored, listed, and put into the planner's outbox. Answers 0 when it is known already.
-- ARGV 6 fields of the state (JSON), 7 plan ('' of a request in words), 8 inputs, 9 the request (JSON or '')   KEYS 15 index of the tenant, 16 the tenants
if redis.call('EXISTS', STATE) == 1 then return 0 end
for f, v in pairs(cjson.decode(ARGV[6])) do set(f, v) end
set('st', 'planning'); set('t0', now)
redis.call('HSET', DATA, 'inputs', ARGV[8])
if ARGV[7] ~= '' then redis.call('HSET', DATA, 'plan', ARGV[7]) end
if ARGV[9] ~= '' then redis.call('HSET', DATA, 'request', ARGV[9]) end
wait_for_planner()
redis.call('ZADD', KEYS[15], now, JOB)
redis.call('SADD', KEYS[16], get('tenant'))
event('job.accepted')
settle()
return 1
