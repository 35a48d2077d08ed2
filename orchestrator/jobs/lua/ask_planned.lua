#!lua flags=allow-oom
-- include ledger
-- include asked
-- A request has its plan. Answers {verdict, [], what to release}: "start" it now, "waits" for a person, "ends" with the plan as its
-- output, or why this planner has no say.
-- ARGV 6 token, 7 plan, 8 inputs (stored form), 9 how it was made (JSON), 10 data of the event (JSON), 11 how often it may be planned
--      anew, 12 1: a model words the answer, 13 lease (ms), 14 what is added to the end of the lease of a taken job
local why = not_mine(ARGV[6])
if why then return {why, {}, {}} end
local former = redis.call('HGET', DATA, 'plan')
redis.call('HSETNX', DATA, 'given', redis.call('HGET', DATA, 'inputs'))  -- those of the person alone
if former then redis.call('HSET', DATA, 'plan:' .. text(num('pv')), former) end
redis.call('HSET', DATA, 'plan', ARGV[7], 'inputs', ARGV[8], 'planned', ARGV[9])
give_back(); forget_replies(); set('rq_lost', 0)
inc('pv', 1); set('rq', 's'); set('rq_since', 0); set('rq_waits', 0); set('rq_why', ''); set('rq_at', 0); set('rq_words', ARGV[12])
if not get('rq_left') then set('rq_left', ARGV[11]) end
event('job.planned', nil, nil, nil, ARGV[10])
local verdict, woken = 'start', {}
if get('md') == 'plan' then
  leave_planner()
  verdict, ending, final = 'ends', 'succeeded', true
elseif get('md') == 'confirm' then
  leave_planner(); ask_person()
  verdict = 'waits'
else redis.call('ZADD', ACCEPTED, tonumber(ARGV[14]) + now + tonumber(ARGV[13]), JOB) end
local _
_, woken = settle()
return {verdict, {}, woken}
