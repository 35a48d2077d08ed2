#!lua flags=allow-oom
-- include ledger
-- include asked
-- A planner that stops gives a request back: the next one takes it at once.   ARGV 6 token
local why = not_mine(ARGV[6])
if why then return {why} end
give_back()
redis.call('ZADD', ACCEPTED, now - FIRST, JOB)
settle()
return {'ok'}
