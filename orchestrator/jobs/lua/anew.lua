-- The end of a request's steps: planned anew after a failure, worded after a success. Included by `ledger`.
local function calls_of(s)  -- of a step, with those that they made
  local n = most_calls(s)
  preload_calls(s, n)
  local found = {}
  for i = 0, n - 1 do
    local call = s .. '#' .. text(i)
    found[#found + 1] = call
    for _, child in ipairs(children_of(call)) do found[#found + 1] = child .. '#0' end
  end
  return found
end
-- An effect that may have happened forbids it, and so does one that happened in a part of what failed: the new plan would repeat it.
local function may_plan_anew(steps)
  if num('un') > 0 then return false end
  for _, s in ipairs(steps) do
    local kept = get('t:' .. s) == 's'
    for _, call in ipairs(calls_of(s)) do
      local st = state_of(call)
      if spec(step_of(call)).ef == 'once' and (st == 'r' or st == 'u' or st == 's' and not kept) then return false end
    end
  end
  return true
end
local function what_failed(steps)  -- a few of the errors
  local said = {}
  for _, s in ipairs(steps) do
    for _, call in ipairs(num('f:' .. s) > 0 and calls_of(s) or {}) do
      local raw = state_of(call) == 'f' and #said < 5 and redis.call('HGET', DATA, 'e:' .. call)
      if raw then
        local e = cjson.decode(raw)
        said[#said + 1] = {step = s, code = e.code, message = string.sub(e.message or '', 1, 500)}
      end
    end
  end
  return said
end
-- What of the plan has not ended is over; the next plan begins with empty lanes.
local function stop_plan(steps)
  for _, s in ipairs(steps) do
    for _, call in ipairs(calls_of(s)) do
      local st, a, tries, lost = call_of(call)
      local p, entry = spec(step_of(call)), st == 'w' and get('ks:' .. call) or ''
      if entry ~= '' then
        if redis.call('ZREM', PARKED, entry) == 1 then freed[parts_of(entry)] = 0 end
        set('ks:' .. call, '')
      end
      if st == 'q' then redis.call('ZREM', queued_key(p), JOB .. '|' .. call .. '|' .. text(a)) end
      if st == 'q' or st == 'r' or st == 'w' or st == 'n' then set_call(call, 'x', a, tries, lost) end
    end
  end
  local drop = {}
  local function forget(f) drop[#drop + 1] = f; cache[f] = false; dirty[f] = nil end
  for l = 0, #cjson.decode(get('ln')) - 1 do
    for n = num('ph:' .. l), num('pt:' .. l) - 1 do forget('p:' .. l .. ':' .. text(n)) end
    for _, f in ipairs({'ph:', 'pt:', 'w:', 'kw:', 'nw:'}) do forget(f .. l) end
  end
  for i = 1, #drop, 1000 do redis.call('HDEL', STATE, unpack(drop, i, math.min(i + 999, #drop))) end
end
local function go_on_with_request()
  local rq = get('rq')
  if final or rq ~= 's' then return end
  if ending == 'succeeded' and get('rq_words') == '1' then
    set('rq', 'a'); go_to_planner()
    event('job.answering')
    ending = nil
  elseif ending == 'failed' and num('rq_left') > 0 then
    local steps = cjson.decode(get('rq_steps') or '[]')
    if not may_plan_anew(steps) then return end
    local said = what_failed(steps)
    stop_plan(steps)
    set('st', 'planning'); set('rq', 'p'); set('rq_ok', 0); inc('rq_left', -1)
    set('live', 0); set('un', 0); set('nf', 0)
    go_to_planner()
    event('job.replanning', nil, nil, nil, {errors = said, left = num('rq_left')})
    ending = nil; stopped = true
  end
end
