#!lua flags=allow-oom
-- include ledger
-- A person confirms the plan of a request. Answers {verdict}: "ok", "again" (it was confirmed before), "no plan", or "job <status>".
local st = get('st')
if not st then return {'no job'} end
if num('rq_ok') == 1 and (st == 'planning' or st == 'running' or st == 'waiting') then return {'again'} end
if get('rq') == 'p' and st == 'planning' then return {'no plan'} end
if st ~= 'waiting' or get('rq') ~= 's' or get('md') ~= 'confirm' then return {'job ' .. st} end
set('st', 'planning'); set('rq_ok', 1); set('rq_why', '')
event('job.confirmed')
go_to_planner()
settle()
return {'ok'}
