-- include ledger
-- The planner publishes a job for the first time: its steps enter the ledger. Answers the calls to publish.
-- ARGV 5 steps [[id, dependencies, s (JSON), x (JSON)]...] (JSON), 6 lengths of the lists in the inputs (JSON), 7 names of the queues (JSON)
redis.call('ZREM', ACCEPTED, JOB)
if get('st') ~= 'planning' then return {} end
local steps = cjson.decode(ARGV[5])
for _, s in ipairs(steps) do
  set('d:' .. s[1], s[2]); set('s:' .. s[1], s[3]); set('x:' .. s[1], s[4])
end
for list, n in pairs(cjson.decode(ARGV[6])) do set('len:' .. list, n) end
set('st', 'running'); set('t1', now); set('left', #steps); set('qs', ARGV[7])
redis.call('SADD', QUEUES, unpack(cjson.decode(ARGV[7])))
event('job.running')
for _, s in ipairs(steps) do
  if s[2] == 0 then work[#work + 1] = {'start', s[1]} end
end
return settle()
