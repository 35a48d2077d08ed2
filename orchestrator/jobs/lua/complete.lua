#!lua flags=allow-oom
-- include ledger
-- A worker commits the outcome of a call: exactly once, by state, attempt and token. Answers {verdict, calls to publish, lanes to release}.
-- ARGV 6 call, 7 attempt, 8 token, 9 outcome s|f|k|w|b|u, 10 value or error, 11 delay before the retry (ms),
--      12 lengths of the lists that maps take from the result (JSON or ''), 13 SHA-256 of a large value, 14 the large value
local call, attempt, token, outcome, payload = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local s = step_of(call)
preload({'c:' .. call, 'kg:' .. call, 'cn:' .. call, 's:' .. s, 't:' .. s, 'n:' .. s, 'k:' .. s, 'left', 'live', 'un'})
redis.call('ZREM', LEASES, JOB .. '|' .. call .. '|' .. attempt)
drop_key(call, attempt)
local st, a, tries, lost, since, held = call_of(call)
if st ~= 'r' or text(a) ~= attempt or held ~= token then return {'fenced', {}, wakes()} end
local p = spec(s)
if get('st') ~= 'running' and get('st') ~= 'waiting' then
  if p.ef == 'once' then  -- too late for the job, but a retry of it must know whether the effect happened
    if outcome == 's' then
      set_call(call, 's', a, tries, lost)
      redis.call('HSET', DATA, 'r:' .. call, payload)
      if ARGV[13] ~= '' then  -- perhaps the first that is this large: it goes with the job
        redis.call('HSETNX', BIG, ARGV[13], ARGV[14]); redis.call('EXPIRE', BIG, redis.call('TTL', STATE))
      end
      if ARGV[12] ~= '' then for list, n in pairs(cjson.decode(ARGV[12])) do set('len:' .. list, n) end end
    elseif outcome ~= 'u' then set_call(call, 'n', a, 0, 0) end
    settle()
  end
  return {'job ' .. get('st'), {}, wakes()}
end
preload({'w:' .. p.l, 'ph:' .. p.l, 'pt:' .. p.l, 'pk:' .. p.l})
if outcome == 's' then
  set_call(call, 's', a, tries, lost)
  redis.call('HSET', DATA, 'r:' .. call, payload)
  if ARGV[13] ~= '' then redis.call('HSETNX', BIG, ARGV[13], ARGV[14]) end
  if ARGV[12] ~= '' then for list, n in pairs(cjson.decode(ARGV[12])) do set('len:' .. list, n) end end
  if p.m or num('n:' .. s) > 1 then
    if num('n:' .. s) <= 200 then event('call.succeeded', s, call, a) end
  end
  inc('live', -1); unpublish(p)
  end_children(call)
  end_call(s, index_of(call), 's')
elseif outcome == 'k' then
  set_call(call, 'k', a, tries, lost)
  inc('live', -1); unpublish(p)
  event('call.skipped', s, call, a, payload)
  end_children(call)
  end_call(s, index_of(call), 'k')
elseif outcome == 'w' then
  set_call(call, 'w', a, tries + 1, lost)
  unpublish(p)
  redis.call('ZADD', TIMERS, now + tonumber(ARGV[11]), JOB .. '|' .. call .. '|' .. attempt)
  event('call.waiting', s, call, a, '{"retry_in_ms":' .. ARGV[11] .. ',"error":' .. payload .. '}')
elseif outcome == 'b' then  -- it could not begin: that is no try, and no news
  set_call(call, 'w', a, tries, lost)
  unpublish(p)
  redis.call('ZADD', TIMERS, now + tonumber(ARGV[11]), JOB .. '|' .. call .. '|' .. attempt)
elseif outcome == 'u' and p.ef ~= 'once' and num('cn:' .. call) > 0 and not unknown_child(call) then
  unpublish(p); go_on(call, a, tries, lost)  -- what it waited for was settled while it ended
elseif outcome == 'u' then
  set_call(call, 'u', a, tries, lost)
  note_error(call, payload)
  inc('live', -1); inc('un', 1); unpublish(p)
  event('call.unknown', s, call, a, '{"error":' .. payload .. '}')
  if p.par then tell_maker(p, call) end
else
  fail_call(call, a, tries + 1, lost, payload)
end
return {'ok', settle()}
