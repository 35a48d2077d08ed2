#!lua flags=allow-oom
-- include ledger
-- A person says whether the effect of an unknown call happened. Answers {verdict, calls to publish, what to release}.
-- ARGV 6 call, 7 happened|retry, 8 value (stored form), 9 lengths of the lists that maps take from it (JSON or '')
local call = ARGV[6]
local st, a, tries, lost = call_of(call)
if not get('st') then return {'no job', {}} end
if st ~= 'u' then return {'state ' .. (st or '?'), {}} end
if get('st') ~= 'running' and get('st') ~= 'waiting' then return {'job ' .. get('st'), {}} end
local s = step_of(call)
local maker = spec(s).par
local mst, ma, mtries, mlost
if maker then mst, ma, mtries, mlost = call_of(maker) end
local over = mst == 's' or mst == 'f' or mst == 'k' or mst == 'x'  -- nothing waits for it, so it is not counted
if not over then inc('un', -1) end
if get('st') == 'waiting' then set('st', 'running'); event('job.running') end
redis.call('HDEL', DATA, 'e:' .. call)
if ARGV[7] == 'happened' then
  set_call(call, 's', a, tries, lost)
  redis.call('HSET', DATA, 'r:' .. call, ARGV[8])
  if ARGV[9] ~= '' then for list, n in pairs(cjson.decode(ARGV[9])) do set('len:' .. list, n) end end
  event('call.succeeded', s, call, a, {resolved = true})
  touched[spec(s).l] = true
  end_children(call)
  if not maker and get('t:' .. s) == 'r' then end_call(s, index_of(call), 's') end
elseif maker then  -- it is made again when the program asks for it; one that runs may have asked already
  set_call(call, 'n', a, 0, 0)
  if mst == 'r' then make_child(s) end
else
  -- After a retry of the job the step, or the item, may still wait for what it follows.
  local p, flags = spec(s), num('i:' .. call)
  local follows = p.al - num('ax:' .. s)
  set_call(call, 'n', a, tries, lost)
  if get('t:' .. s) == 'r' and (follows == 0 or flags % 10000 == follows) then
    if flags >= 10000 and not p.run then skip_call(s, index_of(call))
    else inc('live', 1); go_on(call, a, tries, lost) end
  end
end
if maker then  -- the program that waits for this answer goes on
  tell_maker(spec(s), call)
  if mst == 'u' then
    inc('un', -1); inc('live', 1)
    redis.call('HDEL', DATA, 'e:' .. maker)
    set_call(maker, 'n', ma, mtries, mlost)
    go_on(maker, ma, mtries, mlost)
  end
end
return {'ok', settle()}
