#!lua flags=allow-oom
-- include ledger
-- The job stops before its time: nothing more is released, running calls learn it with their next beat.
-- Answers {the status it had, {}, what to release}.   ARGV 6 cancelled|failed, 7 error (JSON or '')
local st = get('st')
if not st then return {'', {}, {}} end
local woken = {}
if st == 'planning' or st == 'running' or st == 'waiting' then
  if st == 'planning' then leave_planner() end
  if ARGV[7] ~= '' then redis.call('HSET', DATA, 'error', ARGV[7]) end
  if ARGV[6] == 'failed' then inc('nf', 1) end
  ending = ARGV[6]
  local _
  _, woken = settle()
end
return {st, {}, woken}
