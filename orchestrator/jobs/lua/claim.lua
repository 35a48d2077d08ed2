#!lua flags=allow-oom
-- A worker asks for a call. Only the message that carries the current attempt of a queued call gets it.
-- KEYS 1 state, 2 events, 3 leases, 4 marks, 5 queued set of the queue
-- ARGV 1 job, 2 call, 3 attempt, 4 token, 5 lease (ms), 6 events kept, 7 queue, 8 newest schema that this worker knows
-- Answers {why not} or {'ok', x (JSON), tries, queues (JSON), priority, tenant, and of each step whose whole list is read: name, calls}
local STATE = KEYS[1]
local job, call, attempt, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local step = string.match(call, '^(.-)#')
local v = redis.call('HMGET', STATE, 'st', 'c:' .. call, 'x:' .. step, 'qs', 's:' .. step, 'pri', 'n:' .. step, 'tenant', 'v')
local member = job .. '|' .. call .. '|' .. attempt
if tonumber(v[9] or 0) > tonumber(ARGV[8]) then return {'schema ' .. v[9]} end  -- a newer worker will take it
if v[1] ~= 'running' and v[1] ~= 'waiting' then
  redis.call('ZREM', KEYS[5], member)
  return {'job ' .. (v[1] or 'unknown')}
end
if not v[2] then return {'no such call'} end
local st, a, tries, lost, since, held = string.match(v[2], '^(%a)|(%d+)|(%d+)|(%d+)|(%d+)|(.*)$')
if a ~= attempt then redis.call('ZREM', KEYS[5], member); return {'overtaken by attempt ' .. a} end
if st ~= 'q' and not (st == 'r' and held == token) then return {'already ' .. st} end
local facts = cjson.decode(v[5])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if st == 'q' then
  local total, told_of = v[7], call
  if facts.par then told_of = facts.par; total = redis.call('HGET', STATE, 'n:' .. string.match(step, '^[^.]*')) end
  redis.call('HSET', STATE, 'c:' .. call, string.format('r|%s|%s|%s|%d|%s', a, tries, lost, now, token))
  redis.call('ZREM', KEYS[5], member)
  redis.call('ZADD', KEYS[3], now + tonumber(ARGV[5]), member)
  local mark = ARGV[7] .. '|' .. held  -- the level at which it stood
  if tonumber(since) > tonumber(redis.call('HGET', KEYS[4], mark) or 0) then redis.call('HSET', KEYS[4], mark, since) end
  local every = math.floor(tonumber(total or 1) / 100)  -- of a large map only some items are told, and what they call
  if every <= 2 or attempt ~= '1' or tonumber(string.match(told_of, '%d+$')) % every == 0 then
    local told = {'XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 't', 'call.running', 's', string.match(step, '^[^.]*'), 'c', call, 'a', attempt}
    if facts.par then told[#told + 1] = 'd'; told[#told + 1] = cjson.encode({tool = facts.tool, parent = facts.par}) end
    redis.call(unpack(told))
  end
end
local answer = {'ok', v[3], tries, v[4], v[6], v[8]}
local lists = facts.ls
if lists then
  for _, s in ipairs(lists) do answer[#answer + 1] = s; answer[#answer + 1] = redis.call('HGET', STATE, 'n:' .. s) or '0' end
end
return answer
