#!lua flags=allow-oom
-- include ledger
-- include asked
-- No plan can be made now: the request is offered again in a while. Answers {verdict}: "waits", "over" when it has waited long enough,
-- or why this planner has no say.   ARGV 6 token, 7 pause (ms), 8 reason, 9 longest wait in all (ms), 10 data of the event (JSON),
-- 11 what is added to the time at which a taken job is offered again
local why = not_mine(ARGV[6])
if why then return {why} end
local pause = tonumber(ARGV[7])
if num('rq_since') == 0 or num('rq_since') > now then set('rq_since', now) end
if now + pause - num('rq_since') > tonumber(ARGV[9]) then return {'over'} end
give_back()
inc('rq_waits', 1); set('rq_why', ARGV[8]); set('rq_at', now + pause)
redis.call('ZADD', ACCEPTED, tonumber(ARGV[11]) + now + pause, JOB)
event('job.waiting', nil, nil, nil, ARGV[10])
settle()
return {'waits'}
