#!lua flags=allow-oom
-- include ledger
-- A planner process begins with a request: it alone plans it until its lease ends. Answers {verdict, what is wanted, which try, pauses so far,
-- how often a person had it tried again}.
-- ARGV 6 token, 7 lease (ms), 8 what is added to the end of the lease of a taken job
local wanted, lease = get('rq'), tonumber(ARGV[7])
if not (get('st') == 'planning' and wanted == 'p' or get('st') == 'running' and wanted == 'a') then
  return {'job ' .. (get('st') or 'unknown')}
end
local held = (get('rq_token') or '') ~= '' and num('rq_lease') or 0
if held > now and held <= now + 2 * lease then  -- else it is from before the clock of Redis went back
  redis.call('ZADD', ACCEPTED, tonumber(ARGV[8]) + held, JOB)
  return {'busy'}
end
set('rq_token', ARGV[6]); set('rq_lease', now + lease); set('rq_why', ''); set('rq_at', 0)
redis.call('ZADD', ACCEPTED, tonumber(ARGV[8]) + now + lease, JOB)
local lost = redis.call('HGET', DATA, 'sent')  -- a request to a model that was on its way when its planner died
if lost then
  redis.call('HDEL', DATA, 'sent', 'sent_id')
  redis.call('HSET', DATA, 'u:' .. inc('rq_calls', 1), lost)
end
if wanted == 'p' then event('job.planning', nil, nil, nil, {attempt = inc('rq_try', 1)}) end
settle()
return {'ok', wanted, num('rq_try'), num('rq_waits'), num('rq_gen')}
