-- include ledger
-- The planner publishes a job for the first time: its steps enter the ledger. Answers {verdict, calls to publish, what to release}.
-- ARGV 6 steps [[id, dependencies, s (JSON), x (JSON)]...] (JSON), 7 lengths of the lists in the inputs (JSON),
--      8 names of the queues (JSON), 9 lanes (JSON), 10 number of the plan (0: the job began as a plan), 11.. name and text of each envelope
if get('st') ~= 'planning' then
  if get('rq') ~= 'a' then redis.call('ZREM', ACCEPTED, JOB) end
  return {'job ' .. (get('st') or 'unknown'), {}, {}}
end
if get('rq') == 'p' or num('pv') ~= tonumber(ARGV[10]) then return {'another plan', {}, {}} end
leave_planner()
local steps = cjson.decode(ARGV[6])
for _, s in ipairs(steps) do
  set('d:' .. s[1], s[2]); set('s:' .. s[1], s[3]); set('x:' .. s[1], s[4])
end
for list, n in pairs(cjson.decode(ARGV[7])) do set('len:' .. list, n) end
if num('t1') == 0 then set('t1', now) end
set('st', 'running'); set('left', #steps); set('qs', ARGV[8]); set('ln', ARGV[9])
redis.call('SADD', QUEUES, unpack(cjson.decode(ARGV[8])))
if get('rq') then
  local ids = {}
  for i, s in ipairs(steps) do ids[i] = s[1] end
  set('rq_steps', cjson.encode(ids)); set('rq_run', get('pv')); set('rq_token', '')
end
for i = 11, #ARGV, 2 do redis.call('HSET', ENVELOPES, ARGV[i], ARGV[i + 1]) end
event('job.running')
for _, s in ipairs(steps) do
  if s[2] == 0 then work[#work + 1] = {'start', s[1]} end
end
return {'ok', settle()}
