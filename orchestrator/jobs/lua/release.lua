#!lua flags=allow-oom
-- include ledger
-- What was parked gets its turn: a lane, or a call that waited for its key. Answers {verdict, calls to publish, what to release}.
-- ARGV 6 its entry
local gate, _, _, what = parts_of(ARGV[6])
local call, attempt = string.match(what, '^(.*)|(%d+)$')
if get('st') ~= 'running' and get('st') ~= 'waiting' then
  redis.call('ZREM', PARKED, ARGV[6])
  freed[gate] = 0
  return {'stale', {}, wakes()}
end
if call then
  local st, a, tries, lost = call_of(call)
  if redis.call('ZREM', PARKED, ARGV[6]) == 0 or st ~= 'w' or text(a) ~= attempt then return {'stale', {}, {}} end
  redis.call('ZREM', TIMERS, JOB .. '|' .. call .. '|' .. attempt)
  wait_over(call, a, tries, lost)
else
  local l = tonumber(what)
  if get('pk:' .. what) == ARGV[6] then
    local free, why = room(l)
    if free <= 0 and why == gate then return {'full', {}, {}} end
    unpark(what)
    refill(l, true)
  else redis.call('ZREM', PARKED, ARGV[6]) end
  look_at_gates(l)
end
return {'ok', settle()}
