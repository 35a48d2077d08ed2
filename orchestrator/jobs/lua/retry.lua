-- include ledger
-- A failed or cancelled job goes on from what did not succeed; attempts keep rising. Answers {verdict, calls to publish}.
-- ARGV 6 steps in topological order [[id, [barrier dependencies], [aligned dependencies]]...] (JSON)
local st = get('st')
if not st then return {'no job', {}} end
if not (st == 'failed' or st == 'cancelled' or (st == 'succeeded' and num('ne') > 0)) then return {'job ' .. st, {}} end
local steps = cjson.decode(ARGV[6])
if not get('qs') then  -- cancelled before it was planned
  set('st', 'planning'); redis.call('ZADD', ACCEPTED, now, JOB)
  for _, k in ipairs({STATE, DATA, EVENTS, BIG}) do redis.call('PERSIST', k) end
  settle()
  return {'plan', {}}
end
local drop = {}
local function forget(f) drop[#drop + 1] = f; cache[f] = false; dirty[f] = nil end
for q = 0, QUEUE_COUNT - 1 do
  local qs = text(q)
  for n = num('ph:' .. qs), num('pt:' .. qs) - 1 do forget('p:' .. qs .. ':' .. text(n)) end
  forget('ph:' .. qs); forget('pt:' .. qs); forget('w:' .. qs)
end
-- A step runs again when it did not succeed whole, or when something that it reads runs again. A call keeps its result
-- when it succeeded and what it reads is kept; an effect that happened once is never repeated.
local again, lost = {}, {}  -- lost[step][i]: item i has no kept result
for _, row in ipairs(steps) do
  local s, barrier, aligned = row[1], row[2], row[3]
  local good = get('t:' .. s) == 's' and num('f:' .. s) == 0 and num('z:' .. s) == 0
  local stale = false
  for _, b in ipairs(barrier) do stale = stale or again[b] end
  local follows = stale
  for _, b in ipairs(aligned) do follows = follows or again[b] end
  if not good or follows then
    local once = spec(s).ef == 'once'
    again[s] = true; lost[s] = {}
    for i = 0, num('n:' .. s) - 1 do
      local call = s .. '#' .. text(i)
      local cst, a = call_of(call)
      local drop_it = stale
      for _, b in ipairs(aligned) do drop_it = drop_it or (lost[b] and lost[b][i]) end
      if cst and not (cst == 's' and (once or not drop_it)) then
        set_call(call, 'n', a, 0, 0); redis.call('HDEL', DATA, 'e:' .. call, 'r:' .. call)
        lost[s][i] = true
      elseif not cst then lost[s][i] = true end
      forget('i:' .. call)
    end
    redis.call('HDEL', DATA, 'e:' .. s .. '#0')
    for _, f in ipairs({'t:', 'k:', 'f:', 'z:', 'y:', 'ax:', 'ic:'}) do forget(f .. s) end
    set('d:' .. s, #barrier + #aligned)
    set('re:' .. s, 1)
  end
end
for i = 1, #drop, 1000 do redis.call('HDEL', STATE, unpack(drop, i, math.min(i + 999, #drop))) end
for _, k in ipairs({STATE, DATA, EVENTS, BIG}) do redis.call('PERSIST', k) end
set('st', 'running'); set('t2', 0); set('nf', 0); set('ne', 0); set('live', 0); set('un', 0)
event('job.running', nil, nil, nil, {retried = true})
local left = 0
for _, row in ipairs(steps) do if again[row[1]] then left = left + 1 end end
set('left', left)
if left == 0 then ending = 'succeeded' end
-- Steps that stay as they are satisfy those that follow.
for _, row in ipairs(steps) do
  local s = row[1]
  if not again[s] then
    local p = spec(s)
    for _, b in ipairs(p.b) do if again[b] then inc('d:' .. b, -1) end end
    for _, b in ipairs(p.a) do
      if again[b] then
        inc('d:' .. b, -1)
        for i = 0, num('n:' .. s) - 1 do inc('i:' .. b .. '#' .. text(i), 1) end
        inc('ic:' .. b, 1)
      end
    end
  end
end
for _, row in ipairs(steps) do
  if again[row[1]] and num('d:' .. row[1]) == 0 then work[#work + 1] = {'start', row[1]} end
end
return {'ok', settle()}
