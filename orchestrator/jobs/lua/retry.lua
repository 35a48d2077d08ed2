-- include ledger
-- A failed or cancelled job goes on from what did not succeed; attempts keep rising. Answers {verdict, calls to publish, what to release}.
-- ARGV 6 steps in topological order [[id, [barrier dependencies], [aligned dependencies]]...] (JSON)
local st = get('st')
if not st then return {'no job', {}} end
if not (st == 'failed' or st == 'cancelled' or (st == 'succeeded' and num('ne') > 0)) then return {'job ' .. st, {}} end
local steps = cjson.decode(ARGV[6])
redis.call('HDEL', DATA, 'error')
if not get('qs') or get('rq') == 'p' or get('rq') == 's' and get('rq_run') ~= get('pv') then  -- it ended before its (new) plan began
  set('t2', 0); set('nf', 0)
  if get('rq') then set('rq_since', 0); set('rq_waits', 0); set('rq_at', 0); set('rq_lost', 0); inc('rq_gen', 1) end
  if get('rq') == 's' and get('md') == 'confirm' and num('rq_ok') == 0 then ask_person()
  else set('st', 'planning'); wait_for_planner() end
  for _, k in ipairs({STATE, DATA, EVENTS, BIG}) do redis.call('PERSIST', k) end
  settle()
  return {'plan', {}}
end
if get('rq') then set('rq', 's'); set('rq_lost', 0); redis.call('HDEL', DATA, 'answer') end
local drop = {}
local function forget(f) drop[#drop + 1] = f; cache[f] = false; dirty[f] = nil end
for l = 0, #cjson.decode(get('ln')) - 1 do
  for n = num('ph:' .. l), num('pt:' .. l) - 1 do forget('p:' .. l .. ':' .. text(n)) end
  forget('ph:' .. l); forget('pt:' .. l); forget('w:' .. l); forget('kw:' .. l)
end
-- A step runs again when a call of it failed or did not end, or when something that it reads runs again. A call that succeeded
-- or was skipped stays so when what it reads is kept. An effect that happened once is never repeated, and one that may have
-- happened (its call was running, or unknown) waits for `resolve`.
local again, kept, unknown = {}, {}, 0  -- kept[step][i]: the state that item i keeps
local function may_have_happened(s, call, cst, a)
  set_call(call, 'u', a, 0, 0)
  unknown = unknown + 1
  if cst == 'u' then return end
  note_error(call, cjson.encode({code = 'unknown', step = s, call = call, attempt = a,
    message = 'the job ended while tool `' .. spec(s).tool .. '` ran; its effect may have happened',
    next = 'find out, then `toolweaver resolve ' .. JOB .. ' ' .. call .. ' --happened` or `--retry`'}))
end
-- A program that runs again is answered from what its calls gave the first time; what did not succeed is made again. When what
-- it reads is new, it is another program, and makes all of them again, unless an effect that happened forbids it.
local function forget_children(maker, stale)
  local base = step_of(maker) .. '.' .. text(index_of(maker)) .. '.'
  local happened = false
  for i = 1, num('cn:' .. maker) do
    local call = base .. text(i) .. '#0'
    local st, a = call_of(call)
    local once = spec(base .. text(i)).ef == 'once'
    if once and (st == 'u' or st == 'r') then may_have_happened(base .. text(i), call, st, a); happened = true
    elseif st == 's' then happened = happened or once
    else
      local entry = st == 'w' and get('ks:' .. call) or ''
      if entry ~= '' then redis.call('ZREM', PARKED, entry); set('ks:' .. call, ''); set('kt:' .. call, 0) end
      set_call(call, 'n', a, 0, 0); redis.call('HDEL', DATA, 'e:' .. call)
    end
  end
  if not stale or happened then return end
  for i = 1, num('cn:' .. maker) do
    local s = base .. text(i)
    if state_of(s .. '#0') == 'n' then set_call(s .. '#0', 'x', select(2, call_of(s .. '#0')), 0, 0) end
    forget('ck:' .. maker .. '|' .. spec(s).key)
  end
end
local function forget_lists(s)  -- those that maps took from results that are not kept
  if spec(s).wl then forget('len:' .. spec(s).wl) end
  for _, take in ipairs(cjson.decode(get('x:' .. s)).lens or {}) do
    if kept[s][type(take[2]) == 'number' and take[2] or 0] ~= 's' then forget('len:' .. take[1]) end
  end
end
for _, row in ipairs(steps) do
  local s, barrier, aligned = row[1], row[2], row[3]
  local good = (get('t:' .. s) == 's' or get('t:' .. s) == 'k') and num('f:' .. s) == 0
  local stale = false
  for _, b in ipairs(barrier) do stale = stale or again[b] end
  local follows = stale
  for _, b in ipairs(aligned) do follows = follows or again[b] end
  if not good or follows then
    local once, most, counted = spec(s).ef == 'once', most_calls(s), 0
    again[s] = true; kept[s] = {}
    preload_calls(s, most)
    for i = 0, most - 1 do
      local call = s .. '#' .. i
      local cst = state_of(call)
      local dropped = stale
      for _, b in ipairs(aligned) do dropped = dropped or (again[b] and not kept[b][i]) end
      if cst == 's' and (once or not dropped) or cst == 'k' and not dropped then kept[s][i] = cst
      elseif once and (cst == 'u' or cst == 'r') then
        if get('cn:' .. call) then forget_children(call, false) end
        may_have_happened(s, call, cst, select(2, call_of(call)))
      elseif cst then
        local entry = cst == 'w' and get('ks:' .. call)  -- it waited for a key
        if entry then redis.call('ZREM', PARKED, entry); forget('ks:' .. call); forget('kt:' .. call) end
        if get('cn:' .. call) then forget_children(call, dropped) end
        set_call(call, 'n', select(2, call_of(call)), 0, 0); redis.call('HDEL', DATA, 'e:' .. call, 'r:' .. call)
      end
    end
    if not kept[s][0] and not (call_of(s .. '#0') == 'u') then redis.call('HDEL', DATA, 'e:' .. s .. '#0') end
    for _, b in ipairs(aligned) do counted = math.max(counted, most_calls(b)) end
    for i = 0, counted - 1 do forget('i:' .. s .. '#' .. text(i)) end
    forget_lists(s)
    set('o:' .. s, most)
    for _, f in ipairs({'t:', 'n:', 'k:', 'f:', 'z:', 'y:', 'ax:', 'ic:'}) do forget(f .. s) end
    set('d:' .. s, #barrier + #aligned)
    set('re:' .. s, 1)
  end
end
for i = 1, #drop, 1000 do redis.call('HDEL', STATE, unpack(drop, i, math.min(i + 999, #drop))) end
for _, k in ipairs({STATE, DATA, EVENTS, BIG}) do redis.call('PERSIST', k) end
set('st', 'running'); set('t2', 0); set('nf', 0); set('ne', 0); set('live', 0); set('un', unknown)
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
    for _, b in ipairs(p.b) do
      if again[b] then
        inc('d:' .. b, -1)
        if get('t:' .. s) == 'k' then set('y:' .. b, 1) end
      end
    end
    for _, b in ipairs(p.a) do
      if again[b] then
        inc('d:' .. b, -1)
        for i = 0, num('n:' .. s) - 1 do
          local skipped = num('z:' .. s) > 0 and call_of(s .. '#' .. text(i)) == 'k'
          inc('i:' .. b .. '#' .. text(i), skipped and 10001 or 1)
        end
        if get('n:' .. s) then inc('ic:' .. b, 1)
        else set('y:' .. b, 1); inc('ax:' .. b, 1) end  -- it was skipped whole and never began
      end
    end
  end
end
for _, row in ipairs(steps) do
  if again[row[1]] and num('d:' .. row[1]) == 0 then work[#work + 1] = {'start', row[1]} end
end
return {'ok', settle()}
