-- The library that every script of the ledger includes.
--
-- KEYS: 1 state, 2 data, 3 events, 4 big, 5 leases, 6 timers, 7 marks, 8 accepted, 9 queues, 10 envelopes,
--       11.. queued set of each of the job's queues, then, when DIRECT, the broker's list of each
-- ARGV: 1 job, 2 window, 3 retention (s), 4 events kept, 5 direct (1: the broker is this server), 6.. what the script itself takes
--
-- Fields of the state hash (one job):
--   st status   v schema   t0 t1 t2 accepted/started/finished (ms)   left steps not ended   nf failed steps   ne tolerated errors
--   live calls queued, running or waiting   un unknown calls   qs names of the queues (JSON)
--   s:<step> what the scripts know of a step (JSON)   x:<step> what the worker needs (JSON)
--   d:<step> dependencies not satisfied   t:<step> r|s|f|k once it started   n: k: f: z: calls in all, ended, failed, skipped
--   o:<step> most calls it had before the job was retried
--   y:<step> skip it   ax:<step> aligned dependencies that will never give items
--   i:<step>#<n> aligned dependencies whose item n ended (+10000 for each without a value)   ic:<step> items begun that way
--   len:<list> length of a list that a map runs over
--   c:<call> "state|attempt|tries|lost|since|token", state q r w s f k u, n reset by a retry of the job
--   w:<q> published calls of a queue   ph: pt: p:<q>:<n> first-in-first-out list of ready, unpublished calls "step:lo:hi"
--   nw:<q> "no worker" was said
local STATE, DATA, EVENTS, BIG, LEASES, TIMERS, MARKS, ACCEPTED, QUEUES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local ENVELOPES = KEYS[10]
local JOB, WINDOW, RETENTION, KEEP, DIRECT = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5] == '1'
local QUEUE_COUNT = DIRECT and (#KEYS - 10) / 2 or #KEYS - 10
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function text(v) if type(v) == 'number' then return string.format('%d', v) end return v end

-- Fields are read once and written once, at the end: see flush().
local cache, dirty = {}, {}
local function get(f)
  local v = cache[f]
  if v == nil then v = redis.call('HGET', STATE, f); cache[f] = v end
  return v
end
local function preload(fields)  -- one command in place of many; what was read or set before stays
  local missing = {}
  for _, f in ipairs(fields) do if cache[f] == nil then missing[#missing + 1] = f end end
  for at = 1, #missing, 1000 do
    local values = redis.call('HMGET', STATE, unpack(missing, at, math.min(at + 999, #missing)))
    for i, v in ipairs(values) do cache[missing[at + i - 1]] = v end
  end
end
local function num(f) return tonumber(get(f) or 0) end
local function set(f, v) cache[f] = text(v); dirty[f] = true end
local function inc(f, n) local v = num(f) + n; set(f, v); return v end

local specs = {}
local function spec(s)
  local p = specs[s]
  if not p then p = cjson.decode(get('s:' .. s)); specs[s] = p end
  return p
end

local function event(kind, step, call, attempt, data)
  local e = {'XADD', EVENTS, 'MAXLEN', '~', KEEP, '*', 't', kind}
  if step then e[#e + 1] = 's'; e[#e + 1] = step end
  if call then e[#e + 1] = 'c'; e[#e + 1] = call end
  if attempt then e[#e + 1] = 'a'; e[#e + 1] = text(attempt) end
  if data then e[#e + 1] = 'd'; e[#e + 1] = type(data) == 'table' and cjson.encode(data) or data end
  redis.call(unpack(e))
end

local function call_of(call)  -- -> state, attempt, tries, lost, since, token
  local v = get('c:' .. call)
  if not v then return nil, 0, 0, 0, 0, '' end
  local st, a, tries, lost, since, token = string.match(v, '^(%a)|(%d+)|(%d+)|(%d+)|(%d+)|(.*)$')
  return st, tonumber(a), tonumber(tries), tonumber(lost), tonumber(since), token
end
local function set_call(call, st, a, tries, lost, since, token)
  set('c:' .. call, string.format('%s|%d|%d|%d|%d|%s', st, a, tries, lost, since or 0, token or ''))
end
local function step_of(call) return string.match(call, '^(.-)#') end
local function index_of(call) return tonumber(string.match(call, '#(%d+)$')) end
local function queued_key(p) return KEYS[11 + p.q] end
local function list_key(p) return KEYS[11 + QUEUE_COUNT + p.q] end

local out = {}       -- calls to publish, unless DIRECT: {call, attempt, queue index, tool}
local touched = {}   -- queues whose window may be refilled
local work = {}      -- steps to start or finish; a list instead of recursion, for plans of any depth
local ending = nil   -- final status, said last

-- The message of a call, from the envelope that Celery made for its tool: see publisher/envelope.py.
local envelopes = {}
local function message(p, call, attempt)
  local name = p.env .. '/' .. get('pri')
  local e = envelopes[name]
  if not e then e = redis.call('HGET', ENVELOPES, name); envelopes[name] = e end
  return (string.gsub(e, '@%u@', {['@J@'] = JOB, ['@S@'] = step_of(call), ['@C@'] = call, ['@A@'] = text(attempt)}))
end

-- A call becomes `queued`. The sorted set is the outbox; the message goes out at once where the broker is this server.
local function enqueue(call, attempt, tries, lost)
  local p = spec(step_of(call))
  set_call(call, 'q', attempt, tries, lost, now)
  redis.call('ZADD', queued_key(p), now, JOB .. '|' .. call .. '|' .. text(attempt))
  if DIRECT then redis.call('LPUSH', list_key(p), message(p, call, attempt))
  else out[#out + 1] = {call, text(attempt), text(p.q), p.tool} end
end
local function unpublish(p) inc('w:' .. p.q, -1); touched[p.q] = true end

local function release_one(p, call)
  local st, a = call_of(call)
  if st == 's' or st == 'k' or st == 'u' then return end  -- kept from before a retry of the job
  inc('w:' .. p.q, 1); inc('live', 1)
  enqueue(call, a + 1, 0, 0)
end
local function push(s, lo, hi)  -- items lo..hi of a step are ready
  local p = spec(s)
  local w, head, tail = num('w:' .. p.q), num('ph:' .. p.q), num('pt:' .. p.q)
  if head == tail and w + hi - lo + 1 <= WINDOW then
    for i = lo, hi do release_one(p, s .. '#' .. text(i)) end
    return
  end
  set('p:' .. p.q .. ':' .. text(tail), s .. ':' .. text(lo) .. ':' .. text(hi))
  set('pt:' .. p.q, tail + 1)
  touched[p.q] = true
end
-- Refills a window once it is half empty, so that refills go out in batches.
local function refill(q)
  local head, tail = num('ph:' .. q), num('pt:' .. q)
  if head == tail or num('w:' .. q) > math.floor(WINDOW / 2) then return end
  while head < tail and num('w:' .. q) < WINDOW do
    local f = 'p:' .. q .. ':' .. text(head)
    local s, lo, hi = string.match(get(f), '^(.-):(%d+):(%d+)$')
    lo, hi = tonumber(lo), tonumber(hi)
    local p = spec(s)
    while lo <= hi and num('w:' .. q) < WINDOW do
      release_one(p, s .. '#' .. text(lo))
      lo = lo + 1
    end
    if lo > hi then
      head = head + 1
      redis.call('HDEL', STATE, f); cache[f] = false; dirty[f] = nil
    else set(f, s .. ':' .. text(lo) .. ':' .. text(hi)) end
  end
  set('ph:' .. q, head)
end

local function dependency_done(s)
  if inc('d:' .. s, -1) == 0 then work[#work + 1] = {'start', s} end
end

local function finish_step(s, forced)
  local p = spec(s)
  local fields = {'f:' .. s, 'z:' .. s, 'n:' .. s, 'k:' .. s, 'nf'}
  for _, b in ipairs(p.b) do fields[#fields + 1] = 'd:' .. b end
  preload(fields)
  local st, started = forced, get('t:' .. s) == 'r'
  if not st then
    if num('f:' .. s) > 0 then
      st = p.e == 'continue' and 's' or 'f'
    elseif not p.m and num('z:' .. s) > 0 then st = 'k'
    else st = 's' end
  end
  local failed = num('f:' .. s)
  if failed > 0 and st == 's' then inc('ne', failed) end
  if st == 'f' then
    if p.e == 'continue' then inc('ne', 1) else inc('nf', 1) end
  end
  set('t:' .. s, st)
  event(st == 's' and 'step.succeeded' or st == 'f' and 'step.failed' or 'step.skipped', s, nil, nil,
    {total = num('n:' .. s), done = num('k:' .. s), failed = failed, skipped = num('z:' .. s)})
  for _, b in ipairs(p.b) do
    if st ~= 's' and not (st == 'f' and p.e == 'continue') then set('y:' .. b, 1) end
    dependency_done(b)
  end
  if p.wl then set('len:' .. p.wl, num('n:' .. s)) end
  if not started then
    for _, b in ipairs(p.a) do
      if st ~= 's' then set('y:' .. b, 1) end
      inc('ax:' .. b, 1); dependency_done(b)
    end
  end
  if inc('left', -1) == 0 then ending = num('nf') > 0 and 'failed' or 'succeeded' end
end

local end_call

local function skip_call(s, i)
  local call = s .. '#' .. text(i)
  local _, a = call_of(call)
  set_call(call, 'k', a, 0, 0)
  end_call(s, i, 'k')
end
local function item_ready(s, i, flags)
  local st = call_of(s .. '#' .. text(i))
  if st == 's' or st == 'k' or st == 'u' then return end  -- kept from before a retry of the job
  if flags >= 10000 and not spec(s).run then skip_call(s, i) else push(s, i, i) end
end
local function item_ended(s, i, bad)
  local v = inc('i:' .. s .. '#' .. text(i), bad and 10001 or 1)
  if get('t:' .. s) ~= 'r' then inc('ic:' .. s, 1)
  elseif v % 10000 == spec(s).al - num('ax:' .. s) then item_ready(s, i, v) end
end

end_call = function(s, i, st)
  local p = spec(s)
  local n, k = num('n:' .. s), inc('k:' .. s, 1)
  if st == 'f' then inc('f:' .. s, 1) elseif st == 'k' then inc('z:' .. s, 1) end
  for _, b in ipairs(p.a) do item_ended(b, i, st ~= 's') end
  if p.m then
    local every = math.max(1, math.floor(n / 100))
    if k % every == 0 and k < n then
      event('step.progress', s, nil, nil, {total = n, done = k, failed = num('f:' .. s), skipped = num('z:' .. s)})
    end
  end
  if k == n then work[#work + 1] = {'finish', s} end
end

-- The step fails, and its job at once.
local function fail_fast(s)
  set('t:' .. s, 'f'); inc('nf', 1)
  event('step.failed', s, nil, nil, {total = num('n:' .. s), done = num('k:' .. s), failed = num('f:' .. s), skipped = num('z:' .. s)})
  ending = 'failed'
end
local function note_error(call, err)
  redis.call('HSET', DATA, 'e:' .. call, err)
end
-- The last try of a call failed: the step's policy decides.
local function fail_call(call, attempt, tries, lost, err)
  local s = step_of(call)
  local p = spec(s)
  set_call(call, 'f', attempt, tries, lost)
  note_error(call, err)
  inc('live', -1); unpublish(p)
  event('call.failed', s, call, attempt, '{"error":' .. err .. '}')
  if p.e == 'fail_fast' then
    inc('f:' .. s, 1); inc('k:' .. s, 1); fail_fast(s)
  else end_call(s, index_of(call), 'f') end
end

local function start_step(s)
  preload({'s:' .. s, 'y:' .. s, 're:' .. s, 'k:' .. s, 'ax:' .. s, 'ic:' .. s, 'c:' .. s .. '#0', 'pri'})
  local p = spec(s)
  if get('y:' .. s) and not p.run then return finish_step(s, 'k') end
  local n = 1
  if p.m then
    local len = get('len:' .. p.m)
    if not len then return finish_step(s, 'k') end
    n = tonumber(len)
    if n < 0 then
      local what = n == -1 and 'is no list' or 'has more items than the limit of a map, 100,000'
      note_error(s .. '#0', cjson.encode({code = 'bad_map', family = 'plan', step = s, call = s .. '#0',
        message = 'step `' .. s .. '` maps over `' .. p.m .. '`, which ' .. what}))
      if p.e == 'fail_fast' then return fail_fast(s) end
      return finish_step(s, 'f')
    end
  end
  set('t:' .. s, 'r'); set('n:' .. s, n)
  event('step.running', s, nil, nil, {total = n})
  for _, b in ipairs(p.a) do dependency_done(b) end
  if get('re:' .. s) then  -- a retried job keeps the items that succeeded
    for i = 0, n - 1 do
      local st = call_of(s .. '#' .. text(i))
      if st == 's' or st == 'k' then
        inc('k:' .. s, 1)
        if st == 'k' then inc('z:' .. s, 1) end
        for _, b in ipairs(p.a) do item_ended(b, i, st == 'k') end
      end
    end
  end
  if num('k:' .. s) == n then return finish_step(s) end
  local aligned = p.al - num('ax:' .. s)
  if aligned == 0 then push(s, 0, n - 1)
  elseif num('ic:' .. s) > 0 then
    for i = 0, n - 1 do
      local v = num('i:' .. s .. '#' .. text(i))
      if v % 10000 == aligned then item_ready(s, i, v) end
    end
  end
end

-- Runs what follows from a change, then writes everything.
local function settle()
  while #work > 0 and not ending do
    local batch = work
    work = {}
    for _, w in ipairs(batch) do
      if w[1] == 'start' then start_step(w[2]) else finish_step(w[2]) end
      if ending then break end
    end
  end
  if not ending then for q in pairs(touched) do refill(q) end end
  if ending then
    set('st', ending); set('t2', now); out = {}
  elseif get('st') == 'running' and num('un') > 0 and num('live') == 0 then
    set('st', 'waiting'); event('job.waiting', nil, nil, nil, {reason = 'calls whose outcome is unknown wait for `resolve`', unknown = num('un')})
  end
  local args = {}
  for f in pairs(dirty) do
    args[#args + 1] = f; args[#args + 1] = cache[f]
    if #args >= 2000 then redis.call('HSET', STATE, unpack(args)); args = {} end
  end
  if #args > 0 then redis.call('HSET', STATE, unpack(args)) end
  dirty = {}
  if ending then
    event('job.' .. ending, nil, nil, nil, {has_errors = num('ne') > 0 or num('nf') > 0})
    for _, k in ipairs({STATE, DATA, EVENTS, BIG}) do redis.call('EXPIRE', k, RETENTION) end
  end
  return out
end
