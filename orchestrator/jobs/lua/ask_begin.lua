#!lua flags=allow-oom
-- include ledger
-- include asked
-- A planner process begins with a request: it alone plans it until its lease ends. Answers {verdict, what is wanted, which try, pauses so far,
-- how often a person had it tried again, how many planners were lost with it}.
-- ARGV 6 token, 7 lease (ms), 8 what is added to the end of the lease of a taken job
local wanted, lease = get('rq'), tonumber(ARGV[7])
if not (get('st') == 'planning' and wanted == 'p' or get('st') == 'running' and wanted == 'a') then
  return {'job ' .. (get('st') or 'unknown')}
end
local lost = (get('rq_token') or '') ~= ''
local held = lost and num('rq_lease') or 0
if held > now and held <= now + 2 * lease then  -- else it is from before the clock of Redis went back
  redis.call('ZADD', ACCEPTED, tonumber(ARGV[8]) + held, JOB)
  return {'busy'}
end
if lost then inc('rq_lost', 1) end
set('rq_token', ARGV[6]); set('rq_lease', now + lease); set('rq_why', ''); set('rq_at', 0)
redis.call('ZADD', ACCEPTED, tonumber(ARGV[8]) + now + lease, JOB)
count_lost_call()
if wanted == 'p' then event('job.planning', nil, nil, nil, {attempt = inc('rq_try', 1)}) end
settle()
return {'ok', wanted, num('rq_try'), num('rq_waits'), num('rq_gen'), num('rq_lost')}
