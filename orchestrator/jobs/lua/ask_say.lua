#!lua flags=allow-oom
-- include ledger
-- include asked
-- The planner of a request goes on with it, and says why that takes long.   ARGV 6 token, 7 reason, 8 for about how long (ms), 9 data (JSON)
local why = not_mine(ARGV[6])
if why then return {why} end
set('rq_why', ARGV[7]); set('rq_at', now + tonumber(ARGV[8]))
event('job.waiting', nil, nil, nil, ARGV[9])
settle()
return {'ok'}
