#!lua flags=allow-oom
-- An event that a tool tells of, or that is told of it, while its call runs.
-- KEYS 1 state, 2 events   ARGV 1 call, 2 attempt, 3 events kept, 4 data (JSON), 5 type, 6 '1': of a large map only some calls tell it
local step = string.match(ARGV[1], '^(.-)#')
local v = redis.call('HMGET', KEYS[1], 'st', 'c:' .. ARGV[1], 'n:' .. step)
local st, a = string.match(v[2] or '', '^(%a)|(%d+)|')
if v[1] ~= 'running' or st ~= 'r' or a ~= ARGV[2] then return 0 end
local every = math.floor(tonumber(v[3] or 1) / 100)  -- as `call.running` is told
if ARGV[6] == '1' and every > 2 and tonumber(string.match(ARGV[1], '%d+$')) % every ~= 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 't', ARGV[5], 's', string.match(ARGV[1], '^[^.#]*'), 'c', ARGV[1], 'a', a, 'd', ARGV[4])
return 1
