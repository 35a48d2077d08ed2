#!lua flags=allow-oom
-- include ledger
-- include asked
-- The job stops before its time: nothing more is released, running calls learn it with their next beat.
-- Answers {the status it had, {}, what to release}, or {'fenced'}.
-- ARGV 6 cancelled|failed, 7 error (JSON or ''), 8 token of the planner who gives up ('' for a person)
local st = get('st')
if not st then return {'', {}, {}} end
if ARGV[8] ~= '' and get('rq_token') ~= ARGV[8] then return {'fenced', {}, {}} end
local woken, over = {}, nil
local refused = st == 'waiting' and get('rq') == 's' and get('md') == 'confirm' and ARGV[6] == 'cancelled'  -- a plan that was shown
if st == 'planning' or st == 'running' or st == 'waiting' then
  if st == 'planning' or get('rq') == 'a' then leave_planner() end
  if get('rq') then set('rq_token', ''); set('rq_why', ''); count_lost_call(); forget_replies() end
  if ARGV[7] ~= '' then redis.call('HSET', DATA, 'error', ARGV[7]) end
  if ARGV[6] == 'failed' then inc('nf', 1) end
  ending = ARGV[6]; final = true
  local _
  _, woken, over = settle()
  if refused then over = over .. '?' end
end
return {st, {}, woken, over}
