-- include ledger
-- A running call makes calls itself, such as a program that calls tools. Each is known to its maker by a key, so that a maker that
-- runs again gets the answers of the first time: what is known already is not made again.
-- Answers {verdict, calls to publish, what to release, [[number, state, digest]..]} in the order asked: state "new" when it was released now.
-- ARGV 6 call, 7 attempt, 8 token, 9 channel on which its worker hears of ends, 10.. of each: key, digest, queue, limit of the tool
--      ('' for none), facts (JSON without q and l), spec (JSON), name of its envelope, its text ('' when the broker is another server)
local maker, attempt, token = ARGV[6], ARGV[7], ARGV[8]
local fields = {'c:' .. maker, 'cn:' .. maker, 'cw:' .. maker, 'qs', 's:' .. step_of(maker)}
for at = 10, #ARGV, 8 do fields[#fields + 1] = 'ck:' .. maker .. '|' .. ARGV[at] end
preload(fields)
local st, a, _, _, _, held = call_of(maker)
if get('st') ~= 'running' and get('st') ~= 'waiting' then return {'job ' .. (get('st') or 'unknown'), {}, {}, {}} end
if st ~= 'r' or text(a) ~= attempt or held ~= token then return {'fenced', {}, {}, {}} end
if get('cw:' .. maker) ~= ARGV[9] then set('cw:' .. maker, ARGV[9]) end
if num('v') < SCHEMA then set('v', SCHEMA) end  -- older processes do not know what becomes of children
local places = {}
for at, name in ipairs(cjson.decode(get('qs'))) do places[name] = at - 1 end
local function lane_for(q, tool, limit)
  if limit == '' then return q end
  lanes = lanes or cjson.decode(get('ln'))
  for at, l in ipairs(lanes) do
    if l[2] == tool then return at - 1 end
  end
  lanes[#lanes + 1] = {q, tool, tonumber(limit)}
  set('ln', cjson.encode(lanes))
  return #lanes - 1
end
local base = step_of(maker) .. '.' .. text(index_of(maker)) .. '.'
local answers = {}
for at = 10, #ARGV, 8 do
  local field = 'ck:' .. maker .. '|' .. ARGV[at]
  local known, q = get(field), places[ARGV[at + 2]]
  if known then
    local n, digest = string.match(known, '^(%d+)|(.*)$')
    local s = base .. n
    local state = state_of(s .. '#0')
    if digest == ARGV[at + 1] and (state == 'n' or state == 'x') then make_child(s); state = 'new' end
    answers[#answers + 1] = {tonumber(n), state, digest}
  elseif not q then answers[#answers + 1] = {0, 'no queue', ''}
  else
    local n = inc('cn:' .. maker, 1)
    local s, facts = base .. text(n), cjson.decode(ARGV[at + 4])
    facts.q, facts.par, facts.key = q, maker, ARGV[at]
    facts.l = lane_for(q, facts.tool, ARGV[at + 3])
    facts.b, facts.a = {}, {}
    if ARGV[at + 7] ~= '' then redis.call('HSET', ENVELOPES, ARGV[at + 6], ARGV[at + 7]) end
    set('s:' .. s, cjson.encode(facts)); set('x:' .. s, ARGV[at + 5]); set(field, text(n) .. '|' .. ARGV[at + 1])
    make_child(s)
    answers[#answers + 1] = {n, 'new', ARGV[at + 1]}
  end
end
local ready, woken = settle()
return {'ok', ready, woken, answers}
