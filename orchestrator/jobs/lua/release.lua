#!lua flags=allow-oom
-- include ledger
-- What was parked gets its turn: a lane, or a call that waited for its key. Answers {verdict, calls to publish, what to release}.
-- ARGV 6 its entry
local gate, since, _, what = parts_of(ARGV[6])
local verdict = 'ok'  -- "moved": it waits on, at another gate
local call, attempt = string.match(what, '^(.*)|(%d+)$')
if get('st') ~= 'running' and get('st') ~= 'waiting' then
  redis.call('ZREM', PARKED, ARGV[6])
  freed[gate] = 0
  return {'stale', {}, wakes()}
end
if call then
  local st, a, tries, lost = call_of(call)
  if redis.call('ZREM', PARKED, ARGV[6]) == 0 then return {'stale', {}, {}} end
  if st ~= 'w' or text(a) ~= attempt or get('ks:' .. call) ~= ARGV[6] then freed[gate] = 0; return {'stale', {}, wakes()} end
  redis.call('ZREM', TIMERS, JOB .. '|' .. call .. '|' .. attempt)
  if not wait_over(call, a, tries, lost) then verdict = 'moved' end
else
  local l = tonumber(what)
  if get('pk:' .. what) == ARGV[6] then
    local free, why = room(l)
    if free <= 0 and why == gate then return {'full', {}, {}} end
    unpark(what)
    had_turn(gate)
    local before = num('w:' .. what)
    refill(l, since)
    if num('w:' .. what) == before and get('pk:' .. what) then verdict = 'moved' end
  else redis.call('ZREM', PARKED, ARGV[6]) end
  look_at_gates(l)
end
return {verdict, settle()}
