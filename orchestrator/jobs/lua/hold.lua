#!lua flags=allow-oom
-- include ledger
-- A running call asks for the key of its tool: at most so many calls with one key run at once. It gets it, or is parked until
-- another one lets go (with a timer beside it, in case that one is lost). Answers {verdict, calls to publish, what to release}.
-- ARGV 6 call, 7 attempt, 8 token, 9 gate, 10 limit, 11 longest wait before it asks again (ms)
local call, attempt, gate, limit = ARGV[6], ARGV[7], ARGV[9], tonumber(ARGV[10])
local s, mine = step_of(call), JOB .. '|' .. call .. '|' .. attempt
local st, a, tries, lost, since, held = call_of(call)
if st ~= 'r' or text(a) ~= attempt or held ~= ARGV[8] then return {'fenced', {}, {}} end
if get('st') ~= 'running' and get('st') ~= 'waiting' then return {'job ' .. get('st'), {}, {}} end
local others = holders(gate)
for _, who in ipairs(others) do
  if who == mine then return {'ok', {}, {}} end
end
local count = #others
set('kg:' .. call, gate)
if count < limit then
  redis.call('ZADD', HELD, 0, gate .. '\n' .. mine)
  if get('kt:' .. call) then set('kt:' .. call, 0) end
  if count + 1 < limit then freed[gate] = 0 end
  return {'ok', settle()}
end
local p = spec(s)
if num('kt:' .. call) == 0 then set('kt:' .. call, since) end  -- it keeps its place in line when another one was quicker
local entry = string.format('%s\n%013d\n%s\n%s|%s', gate, num('kt:' .. call), JOB, call, attempt)
redis.call('ZREM', LEASES, mine)
redis.call('ZADD', PARKED, 0, entry)
redis.call('ZADD', TIMERS, now + tonumber(ARGV[11]), mine)
set_call(call, 'w', a, tries, lost)
set('ks:' .. call, entry); inc('kw:' .. p.l, 1); hold_gates(p.l, -1)
event('call.waiting', s, call, a, {reason = 'another call of tool `' .. p.tool .. '` with the same key runs'})
return {'parked', settle()}
