#!lua flags=allow-oom
-- include ledger
-- include asked
-- The answer of a request is worded, or is not to be: the job ends. Answers {verdict, [], what to release}.   ARGV 6 token, 7 answer ('' for none)
local why = not_mine(ARGV[6])
if why then return {why, {}, {}} end
if get('rq') ~= 'a' then return {'job ' .. get('st'), {}, {}} end
if ARGV[7] ~= '' then redis.call('HSET', DATA, 'answer', ARGV[7]) end
give_back(); forget_replies(); leave_planner()
set('rq', 'e')
ending = 'succeeded'
local _, woken = settle()
return {'ok', {}, woken}
