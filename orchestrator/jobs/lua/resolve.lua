-- include ledger
-- A person says whether the effect of an unknown call happened. Answers {verdict, calls to publish}.
-- ARGV 5 call, 6 happened|retry, 7 value (stored form)
local call = ARGV[5]
local st, a, tries, lost = call_of(call)
if not get('st') then return {'no job', {}} end
if st ~= 'u' then return {'state ' .. (st or '?'), {}} end
if get('st') ~= 'running' and get('st') ~= 'waiting' then return {'job ' .. get('st'), {}} end
local s = step_of(call)
inc('un', -1)
if get('st') == 'waiting' then set('st', 'running'); event('job.running') end
redis.call('HDEL', DATA, 'e:' .. call)
if ARGV[6] == 'happened' then
  set_call(call, 's', a, tries, lost)
  redis.call('HSET', DATA, 'r:' .. call, ARGV[7])
  if ARGV[8] ~= '' then for list, n in pairs(cjson.decode(ARGV[8])) do set('len:' .. list, n) end end
  event('call.succeeded', s, call, a, {resolved = true})
  touched[spec(s).q] = true
  end_call(s, index_of(call), 's')
else
  inc('live', 1); inc('w:' .. spec(s).q, 1)
  enqueue(call, a + 1, tries, lost)
end
return {'ok', settle()}
