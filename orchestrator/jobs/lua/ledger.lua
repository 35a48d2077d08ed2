-- The library that every script of the ledger includes.
--
-- KEYS: 1 state, 2 data, 3 events, 4 big, 5 leases, 6 timers, 7 marks, 8 accepted, 9 queues, 10 envelopes, 11 load, 12 slots,
--       13 parked, 14 held, 15.. queued set of each of the job's queues, then, when DIRECT, the broker's lists: of each queue the
--       front one, of each the light one, of each the heavy one
-- ARGV: 1 job, 2 "window tenant_window least" (the first two times the slots of the pool), 3 retention (s), 4 events kept,
--       5 direct (1: the broker is this server), 6.. what the script itself takes
--
-- Fields of the state hash (one job):
--   st status   v schema   t0 t1 t2 accepted/started/finished (ms)   left steps not ended   nf failed steps   ne tolerated errors
--   live calls queued, running or waiting   un unknown calls   qs names of the queues (JSON)   ln lanes [[queue, tool, limit]..] (JSON)
--   s:<step> what the scripts know of a step (JSON)   x:<step> what the worker needs (JSON)
--   d:<step> dependencies not satisfied   t:<step> r|s|f|k once it started   n: k: f: z: calls in all, ended, failed, skipped
--   o:<step> most calls it had before the job was retried
--   y:<step> skip it   ax:<step> aligned dependencies that will never give items
--   i:<step>#<n> aligned dependencies whose item n ended (+10000 for each without a value)   ic:<step> items begun that way
--   len:<list> length of a list that a map runs over
--   c:<call> "state|attempt|tries|lost|since|token", state q r w s f k u, n reset by a retry of the job; of a queued call the
--            place of the token holds the level at which it stands in its queue; x: stopped with the call that made it
--   cn:<call> how many calls a call made itself: child n of call s#i is the only call of the step s.i.n, whose facts name it (`par`)
--   ck:<call>|<key> "n|digest" of the child that its maker knows by that key   cw:<call> channel on which its worker hears of them
--   w:<l> published calls of a lane   kw:<l> of these, those that wait for a key   ph: pt: p:<l>:<n> first-in-first-out list of
--   ready, unpublished calls "step:lo:hi" of a lane   pk:<l> its entry in PARKED   kg:<call> key that a call holds or waits for
--   ks:<call> its entry in PARKED while it waits   kt:<call> since when it has waited for its key   nw:<q> "no worker" was said
--   Of a job that began as a request in words:
--   rq what is wanted of the planner: p a plan, a the worded answer; or s: it has its plan, e: and its answer, too
--   rq_token who plans it now   rq_lease until when, unless it is renewed   rq_try how often a planner began   rq_lost how many of them were lost   rq_gen how often a
--   person had it tried again   rq_why why nothing moves   rq_at until when   rq_since since when no plan could be made
--   rq_waits how often that was said   rq_ok its plan was confirmed   rq_left how often it may be planned anew
--   rq_words a model is to word the answer   rq_steps ids of the plan's steps (JSON)   rq_calls model calls that are counted
--   pv number of its plan, from 1 (absent: it began as a plan)   rq_run that of the plan whose steps entered the ledger
--    md run|confirm|plan   rq_text the request's beginning
--
-- A lane is a queue of the job, or one tool of it whose concurrency is limited. What all jobs share:
--   LOAD  by gate, how many published calls (queued or running) hold it. Gates: "q|<queue>|<tenant>", "t|<tool>"; "a|<tenant>" counts
--         jobs that wait for the planner. Every change is in the script that changes the call, so it cannot drift.
--   SLOTS by queue, how many calls its workers run at once (kept by the reconciler)
--   PARKED lanes that wait for a gate, in order: "<gate>\n<since>\n<job>\n<lane>" ("t|<tool>|<tenant>" for that of a tool); calls that wait for a key: "k|..\n..\n..\n<call>|<attempt>"
--   HELD  running calls by the key that they hold: "k|<tool>|<key>\n<job>|<call>|<attempt>"
local STATE, DATA, EVENTS, BIG, LEASES, TIMERS, MARKS, ACCEPTED, QUEUES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local ENVELOPES, LOAD, SLOTS, PARKED, HELD, SHARED = KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14], 14
local JOB, RETENTION, KEEP, DIRECT = ARGV[1], ARGV[3], ARGV[4], ARGV[5] == '1'
local QUEUE_COUNT = DIRECT and (#KEYS - SHARED) / 4 or #KEYS - SHARED
local PATIENCE = 2000  -- ms after which a parked lane goes before calls of other jobs that became ready later
local FIRST = 60000     -- ms by which a job that goes back to the planner stands before those that are new
local STRIDE = 10       -- ms of virtual time between two waiting jobs of one tenant
local SCHEMA = 4       -- the newest that these scripts know; a job of a newer one is left to newer workers
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
local function preload_calls(s, n)
  local fields = {}
  for i = 0, n - 1 do fields[i + 1] = 'c:' .. s .. '#' .. i end
  preload(fields)
end
local function num(f) return tonumber(get(f) or 0) end
preload({'v', 'st', 'tenant', 'ln', 'pri', 'rq'})
if num('v') > SCHEMA then return redis.error_reply('SCHEMA ' .. get('v')) end
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
  if step then e[#e + 1] = 's'; e[#e + 1] = string.match(step, '^[^.]*') end  -- a child belongs to the step of its maker
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
local function state_of(call) local v = get('c:' .. call) return v and string.sub(v, 1, 1) end  -- cheaper, for loops over large maps
local function set_call(call, st, a, tries, lost, since, token)
  set('c:' .. call, string.format('%s|%d|%d|%d|%d|%s', st, a, tries, lost, since or 0, token or ''))
end
local function step_of(call) return string.match(call, '^(.-)#') end
local function most_calls(s) return math.max(num('n:' .. s), num('o:' .. s)) end  -- also before the job was retried
local function index_of(call) return tonumber(string.match(call, '#(%d+)$')) end
local function queued_key(p) return KEYS[SHARED + 1 + p.q] end
local function list_key(p, level)
  local which = level == 0 and 1 or level < 3 and 2 or 3
  return KEYS[SHARED + 1 + which * QUEUE_COUNT + p.q]
end

local out = {}       -- calls to publish, unless DIRECT: {call, attempt, queue index, tool, level}
local touched = {}   -- lanes that may be refilled
local freed = {}     -- gates that may let a parked lane in, and up to which load
local work = {}      -- steps to start or finish; a list instead of recursion, for plans of any depth
local ending = nil   -- final status, said last
local final = false  -- it ends, whatever could follow

-- Gates: what is shared by jobs. The load is read once; changes are kept and written at the end.
local loads, deltas, slots_of, names = {}, {}, {}, {}
local function name_of(q)
  local name = names[q]
  if not name then name = string.match(KEYS[SHARED + 1 + q], ':queued:(.*)$'); names[q] = name end
  return name
end
local function load_of(gate)
  local v = loads[gate]
  if not v then v = tonumber(redis.call('HGET', LOAD, gate) or 0); loads[gate] = v end
  return v + (deltas[gate] or 0)
end
local lanes = nil
local function lane(l)
  lanes = lanes or cjson.decode(get('ln'))
  return lanes[l + 1]
end
local windows = nil
local function wide(q, which)  -- a window of a queue, in calls
  if not windows then windows = {string.match(ARGV[2], '^(%S+) (%S+) (%S+)$')} end
  local slots = slots_of[q]
  if not slots then
    slots = tonumber(redis.call('HGET', SLOTS, name_of(q)) or 0); slots_of[q] = slots
  end
  if which == 0 then return math.max(4, slots) end
  return math.max(tonumber(windows[3]), math.floor(tonumber(windows[which]) * slots))
end
local function tenant_gate(q) return 'q|' .. name_of(q) .. '|' .. get('tenant') end
local function gates_of(l)  -- {gate, limit, load at which it lets parked lanes in}..
  local at = lane(l)
  local most = wide(at[1], 2)
  local all = {{tenant_gate(at[1]), most, math.floor(most / 2)}}
  if at[2] ~= '' then all[2] = {'t|' .. at[2], at[3], at[3] - 1} end
  return all
end
local function hold_gates(l, n)
  for _, g in ipairs(gates_of(l)) do
    deltas[g[1]] = (deltas[g[1]] or 0) + n
    if n < 0 then freed[g[1]] = g[3] end
  end
end
local function look_at_gates(l)  -- others that wait for them are released, if there is room
  for _, g in ipairs(gates_of(l)) do freed[g[1]] = g[3] end
end
local function parts_of(entry)  -- of PARKED -> gate, since, job, what
  local line, since, job, what = string.match(entry, '^([^\n]*)\n(%d+)\n([^\n]*)\n(.*)$')
  return string.match(line, '^(t|[^|]*)|') or line, tonumber(since), job, what
end
local function one_parked(low, high) return redis.call('ZRANGEBYLEX', PARKED, low, high, 'LIMIT', 0, 1)[1] end
-- At the gate of a tool each tenant has a line of its own, and the lines take turns.
local function line_of(gate) return string.sub(gate, 1, 2) == 't|' and gate .. '|' .. get('tenant') or gate end
local function first_parked(gate)
  if string.sub(gate, 1, 2) ~= 't|' then return one_parked('[' .. gate .. '\n', '(' .. gate .. '\n\255') end
  local last = redis.call('HGET', MARKS, 'turn|' .. gate) or ''
  return one_parked('(' .. gate .. '|' .. last .. '\n\255', '(' .. gate .. '|\255') or one_parked('[' .. gate .. '|', '(' .. gate .. '|\255')
end
local function had_turn(gate)
  if string.sub(gate, 1, 2) == 't|' then redis.call('HSET', MARKS, 'turn|' .. gate, get('tenant')) end
end
local someone = nil
local function anyone_parked() if someone == nil then someone = redis.call('ZCARD', PARKED) > 0 end return someone end
-- Behind all that wait at the gate already, also when the clock went back; a lane that comes from another gate keeps its time.
local function park(l, gate, since)
  if get('pk:' .. l) then return end
  if not since then
    local line = line_of(gate)
    local last = redis.call('ZREVRANGEBYLEX', PARKED, '(' .. line .. '\n\255', '[' .. line .. '\n', 'LIMIT', 0, 1)[1]
    since = last and math.max(now, select(2, parts_of(last)) + 1) or now
  end
  local entry = string.format('%s\n%013d\n%s\n%d', line_of(gate), since, JOB, l)
  redis.call('ZADD', PARKED, 0, entry)
  set('pk:' .. l, entry); someone = true
end
local function unpark(l)
  local entry = get('pk:' .. l)
  if not entry then return false end
  redis.call('ZREM', PARKED, entry); redis.call('HDEL', STATE, 'pk:' .. l)
  cache['pk:' .. l] = false; dirty['pk:' .. l] = nil; someone = nil
  return true
end

-- The planner takes the job with the lowest score: each further waiting job of a tenant stands a little later, so that a
-- thousand jobs of one do not keep another's first one waiting.
local function wait_for_planner()
  local before = load_of('a|' .. get('tenant'))
  deltas['a|' .. get('tenant')] = 1
  redis.call('ZADD', ACCEPTED, now + before * STRIDE, JOB)
end
local function go_to_planner()  -- before all that are new: this one was planned before; the reconciler wakes a planner at its next look
  deltas['a|' .. get('tenant')] = 1
  redis.call('ZADD', ACCEPTED, now - FIRST, JOB)
end
local function leave_planner()
  redis.call('ZREM', ACCEPTED, JOB)
  deltas['a|' .. get('tenant')] = -1
end

local function ask_person()  -- the plan of a request waits for its confirmation
  set('st', 'waiting'); set('rq_why', 'waits for your confirmation'); set('rq_at', 0)
  event('job.waiting', nil, nil, nil, {reason = get('rq_why'), confirm = true})
end

-- The message of a call, from the envelope that Celery made for its tool: see publisher/envelope.py.
local envelopes = {}
local function message(p, call, attempt)
  local name = p.env .. '/' .. get('pri')
  local e = envelopes[name]
  if not e then e = redis.call('HGET', ENVELOPES, name); envelopes[name] = e end
  return (string.gsub(e, '@%u@', {['@J@'] = JOB, ['@S@'] = step_of(call), ['@C@'] = call, ['@A@'] = text(attempt)}))
end

-- A call becomes `queued`. The sorted set is the outbox; the message goes out at once where the broker is this server.
-- A tenant with few published calls stands before those with many: level 0-2 (by priority), then 3-5.
local RANKS = {interactive = 0, normal = 1, batch = 2}
local function enqueue(call, attempt, tries, lost, level)
  local p = spec(step_of(call))
  if not level then
    level = RANKS[get('pri')] or 1
    if load_of(tenant_gate(p.q)) > wide(p.q, 0) then level = level + 3 end
  end
  set_call(call, 'q', attempt, tries, lost, now, text(level))
  redis.call('ZADD', queued_key(p), now, JOB .. '|' .. call .. '|' .. text(attempt))
  if DIRECT then redis.call('LPUSH', list_key(p, level), message(p, call, attempt))
  else out[#out + 1] = {call, text(attempt), text(p.q), p.tool, text(level)} end
end
local function publish_one(p) inc('w:' .. p.l, 1); hold_gates(p.l, 1) end
local function unpublish(p) inc('w:' .. p.l, -1); hold_gates(p.l, -1); touched[p.l] = true end
-- A call lets go of its key, if it has one: the first that waits for it is let in.
local function drop_key(call, attempt)
  local gate = get('kg:' .. call)
  if not gate then return end
  redis.call('ZREM', HELD, gate .. '\n' .. JOB .. '|' .. call .. '|' .. text(attempt))
  freed[gate] = 0
end

local function release_one(p, call)
  local st, a, tries, lost = call_of(call)
  if st == 'w' then publish_one(p); return enqueue(call, a + 1, tries, lost) end  -- its wait was over when a gate was full
  if st and st ~= 'n' and st ~= 'f' then return end  -- kept from before a retry of the job
  publish_one(p); inc('live', 1)
  enqueue(call, a + 1, 0, 0)
end
-- How many calls of a lane may be published now, and the gate that says so when it is not the job's own window.
local function room(l)
  local free, why = wide(lane(l)[1], 1) - num('w:' .. l), nil
  for _, g in ipairs(gates_of(l)) do
    local here = g[2] - load_of(g[1])
    if here < free then free, why = here, g[1] end
  end
  return free, why
end
-- A call that waited is published again; when a gate is full, it is the first of its lane to pass. Answers whether it was published.
local function go_on(call, a, tries, lost)
  local s = step_of(call)
  local p = spec(s)
  if room(p.l) > 0 then
    publish_one(p); enqueue(call, a + 1, tries, lost)
    return true
  end
  set_call(call, 'w', a, tries, lost)
  local head = num('ph:' .. p.l) - 1
  set('p:' .. p.l .. ':' .. text(head), string.format('%s:%d:%d', s, index_of(call), index_of(call)))
  set('ph:' .. p.l, head); touched[p.l] = true
  return false
end
-- The wait of a call for its key, or for its retry, is over.
local function wait_over(call, a, tries, lost)
  local p, entry = spec(step_of(call)), get('ks:' .. call) or ''
  if entry == '' then return go_on(call, a, tries, lost) end
  redis.call('ZREM', PARKED, entry); set('ks:' .. call, '')
  inc('kw:' .. p.l, -1); inc('w:' .. p.l, -1)  -- it kept its place in the lane's window
  if go_on(call, a, tries, lost) then return true end
  freed[parts_of(entry)] = 0  -- another may use the key meanwhile
  return false
end
local function holders(gate)  -- the running calls that hold a key
  local found = {}
  for _, holder in ipairs(redis.call('ZRANGEBYLEX', HELD, '[' .. gate .. '\n', '(' .. gate .. '\n\255')) do
    local who = string.match(holder, '\n(.*)$')
    if redis.call('ZSCORE', LEASES, who) then found[#found + 1] = who
    else redis.call('ZREM', HELD, holder) end  -- it was lost
  end
  return found
end
-- The first call that waits for a key. All that wait have a timer; what has none is left from a job that is gone.
local function first_waiting(gate)
  while true do
    local entry = first_parked(gate)
    if not entry then return nil end
    local _, _, job, what = parts_of(entry)
    if redis.call('ZSCORE', TIMERS, job .. '|' .. what) then return entry end
    redis.call('ZREM', PARKED, entry)
  end
end
local function someone_before(l)  -- a lane of another job has waited too long for one of the gates
  if not anyone_parked() then return nil end
  for _, g in ipairs(gates_of(l)) do
    local entry = first_parked(g[1])
    if entry then
      local _, since, job = parts_of(entry)
      if job ~= JOB and math.abs(now - since) > PATIENCE then return true end  -- ahead of us: before the clock went back
    end
  end
end
local function push(s, lo, hi)  -- items lo..hi of a step are ready
  local p = spec(s)
  local l = p.l
  if num('ph:' .. l) == num('pt:' .. l) and hi - lo < room(l) and not someone_before(l) then
    for i = lo, hi do release_one(p, s .. '#' .. text(i)) end
    return
  end
  local tail = num('pt:' .. l)
  set('p:' .. l .. ':' .. text(tail), s .. ':' .. text(lo) .. ':' .. text(hi))
  set('pt:' .. l, tail + 1)
  touched[l] = true
end
-- Publishes up to `most` ready calls of a lane.
local function take(l, most)
  local head, tail = num('ph:' .. l), num('pt:' .. l)
  while head < tail and most > 0 do
    local f = 'p:' .. l .. ':' .. text(head)
    local s, lo, hi = string.match(get(f), '^(.-):(%d+):(%d+)$')
    lo, hi = tonumber(lo), tonumber(hi)
    local p = spec(s)
    while lo <= hi and most > 0 do
      local before = num('w:' .. l)
      release_one(p, s .. '#' .. text(lo))
      most = most - (num('w:' .. l) - before)
      lo = lo + 1
    end
    if lo > hi then
      head = head + 1
      redis.call('HDEL', STATE, f); cache[f] = false; dirty[f] = nil
    else set(f, s .. ':' .. text(lo) .. ':' .. text(hi)) end
  end
  set('ph:' .. l, head)
  return head < tail
end
-- Refills a lane. Of its own window once that is half empty, so that refills go out in batches; when a gate is full, or lanes
-- of other jobs wait for it, it parks: its turn comes when a call that holds the gate ends.
local function refill(l, its_turn)  -- `its_turn`: since when it was parked
  if num('ph:' .. l) == num('pt:' .. l) or get('pk:' .. l) then return end
  local free, why = room(l)
  if not its_turn then
    if not why and free * 2 < wide(lane(l)[1], 1) then return end
    if anyone_parked() then
      for _, g in ipairs(gates_of(l)) do
        if first_parked(g[1]) then park(l, g[1]); look_at_gates(l); return end
      end
    end
  end
  local before = num('w:' .. l)
  if take(l, free) then
    why = select(2, room(l))
    if why then park(l, why, num('w:' .. l) == before and its_turn or nil) end
  end
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

local function note_error(call, err)
  redis.call('HSET', DATA, 'e:' .. call, err)
end
-- The worker of the call that made this one is told that it ended; losing the hint costs it a look.
local function tell_maker(p, call)
  redis.pcall('PUBLISH', get('cw:' .. p.par) or '', JOB .. '|' .. call)
end
-- The calls that a call made, by their steps.
local function children_of(maker)
  local base, names = step_of(maker) .. '.' .. text(index_of(maker)) .. '.', {}
  for i = 1, num('cn:' .. maker) do names[i] = base .. text(i) end
  return names
end
-- A child is made, or made again. One that has no room yet waits (as `go_on` lets it), so that it is made only once.
local function make_child(s)
  local call = s .. '#0'
  local _, a = call_of(call)
  if get('c:' .. call) then set_call(call, 'n', a, 0, 0) end
  push(s, 0, 0)
  local st = state_of(call)
  if st and st ~= 'n' then return end
  redis.call('ZREM', TIMERS, JOB .. '|' .. call .. '|' .. text(a))  -- of a wait before the job was retried
  set_call(call, 'w', a, 0, 0); inc('live', 1)
end
local function unknown_child(maker)  -- whether the outcome of a call that it made is unknown
  for _, s in ipairs(children_of(maker)) do
    if state_of(s .. '#0') == 'u' then return true end
  end
  return false
end
local stopped = false  -- running calls are to stop though the job goes on
-- A call that made others is over: what of them has not ended stops. An effect that may have happened is noted as unknown.
local function end_children(maker)
  local names, fields = children_of(maker), {}
  for _, s in ipairs(names) do fields[#fields + 1] = 'c:' .. s .. '#0'; fields[#fields + 1] = 's:' .. s end
  preload(fields)
  for _, s in ipairs(names) do
    local call, p = s .. '#0', spec(s)
    local st, a, tries, lost = call_of(call)
    if st == 'u' then inc('un', -1)  -- nothing waits for it any more
    elseif not st or st == 'n' then set_call(call, 'x', a, 0, 0)
    elseif st == 'q' or st == 'r' or st == 'w' then
      local entry = st == 'w' and get('ks:' .. call) or ''
      inc('live', -1)
      if st ~= 'w' then unpublish(p)
      elseif entry ~= '' then  -- it waited for a key, and kept its place in the lane's window
        if redis.call('ZREM', PARKED, entry) == 1 then freed[parts_of(entry)] = 0 end
        set('ks:' .. call, ''); inc('kw:' .. p.l, -1); inc('w:' .. p.l, -1); touched[p.l] = true
      end
      if st == 'q' then redis.call('ZREM', queued_key(p), JOB .. '|' .. call .. '|' .. text(a)) end
      if st == 'r' then stopped = true end
      if st == 'r' and p.ef == 'once' then
        set_call(call, 'u', a, tries, lost)
        note_error(call, cjson.encode({code = 'unknown', step = step_of(maker), call = call, attempt = a,
          message = 'the program ended while tool `' .. p.tool .. '` ran; its effect may have happened'}))
      else set_call(call, 'x', a, tries, lost) end
      event('call.cancelled', s, call, a, {tool = p.tool, parent = maker})
    end
  end
end
local function child_ended(p, s, st)
  local call = s .. '#0'
  if st == 's' and num('n:' .. step_of(p.par)) <= 200 then  -- as those of the plan are told
    event('call.succeeded', s, call, select(2, call_of(call)), {tool = p.tool, parent = p.par})
  end
  tell_maker(p, call)
end

local end_call

local function skip_call(s, i)
  local call = s .. '#' .. text(i)
  local _, a = call_of(call)
  set_call(call, 'k', a, 0, 0)
  end_call(s, i, 'k')
end
local function item_ready(s, i, flags)
  local st = state_of(s .. '#' .. text(i))
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
  if p.par then return child_ended(p, s, st) end
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
-- The last try of a call failed: the step's policy decides.
local function fail_call(call, attempt, tries, lost, err)
  local s = step_of(call)
  local p = spec(s)
  set_call(call, 'f', attempt, tries, lost)
  note_error(call, err)
  inc('live', -1); unpublish(p)
  event('call.failed', s, call, attempt, '{"error":' .. err .. '}')
  end_children(call)
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
    preload_calls(s, n)
    local kept, skipped = 0, 0
    for i = 0, n - 1 do
      local st = state_of(s .. '#' .. i)
      if st == 's' or st == 'k' then
        kept = kept + 1
        if st == 'k' then skipped = skipped + 1 end
        for _, b in ipairs(p.a) do item_ended(b, i, st == 'k') end
      end
    end
    if kept > 0 then inc('k:' .. s, kept) end
    if skipped > 0 then inc('z:' .. s, skipped) end
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

-- What this job holds of the shared gates goes back at its end.
local function let_go()
  if not get('ln') then return end
  lanes = lanes or cjson.decode(get('ln'))
  for l = 0, #lanes - 1 do
    unpark(l)
    local held = num('w:' .. l) - num('kw:' .. l)
    if held ~= 0 then hold_gates(l, -held) end
    set('w:' .. l, 0)
    if get('kw:' .. l) then set('kw:' .. l, 0) end
  end
end
local function write_loads()
  for gate, n in pairs(deltas) do
    if n ~= 0 and redis.call('HINCRBY', LOAD, gate, n) == 0 then redis.call('HDEL', LOAD, gate) end
  end
end
-- What is parked, of any job, and let in now: entries for `release`.
local function wakes()
  local found = {}
  if next(freed) == nil or not anyone_parked() then return found end
  for gate, most in pairs(freed) do
    if load_of(gate) <= most then
      local entry = first_parked(gate)
      if entry then found[#found + 1] = entry end
    end
  end
  return found
end

-- include anew
-- Runs what follows from a change, then writes everything. Answers the calls to publish, and the parked lanes to release.
local function settle()
  while #work > 0 and not ending do
    local batch = work
    work = {}
    for _, w in ipairs(batch) do
      if w[1] == 'start' then start_step(w[2]) else finish_step(w[2]) end
      if ending then break end
    end
  end
  if not ending then for l in pairs(touched) do refill(l) end end
  if ending then let_go(); out = {}; go_on_with_request() end
  if ending then
    set('st', ending); set('t2', now)
  elseif get('st') == 'running' and num('un') > 0 and num('live') == 0 then
    set('st', 'waiting'); event('job.waiting', nil, nil, nil, {reason = 'calls whose outcome is unknown wait for `resolve`', unknown = num('un')})
  end
  local woken = wakes()
  write_loads()
  local args = {}
  for f in pairs(dirty) do
    args[#args + 1] = f; args[#args + 1] = cache[f]
    if #args >= 2000 then redis.call('HSET', STATE, unpack(args)); args = {} end
  end
  if #args > 0 then redis.call('HSET', STATE, unpack(args)) end
  dirty = {}
  if stopped and not ending then redis.pcall('PUBLISH', 'tw:ended', JOB) end
  local over  -- how the job ended, for who counts: 'succeeded', 'succeeded!' with errors ...
  if ending then
    local errors = num('ne') > 0 or num('nf') > 0
    over = ending .. (errors and '!' or '')
    event('job.' .. ending, nil, nil, nil, {has_errors = errors})
    if ending ~= 'succeeded' and num('live') > 0 then redis.pcall('PUBLISH', 'tw:ended', JOB) end  -- workers stop its calls at once
    for _, k in ipairs({STATE, DATA, EVENTS, BIG}) do redis.call('EXPIRE', k, RETENTION) end
  end
  return out, woken, over
end
