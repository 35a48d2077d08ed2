#!lua flags=allow-oom
-- A tool's own event, while its call runs.   KEYS 1 state, 2 events   ARGV 1 call, 2 attempt, 3 events kept, 4 data (JSON)
local v = redis.call('HMGET', KEYS[1], 'st', 'c:' .. ARGV[1])
local st, a = string.match(v[2] or '', '^(%a)|(%d+)|')
if v[1] ~= 'running' or st ~= 'r' or a ~= ARGV[2] then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 't', 'log', 's', string.match(ARGV[1], '^[^.#]*'), 'c', ARGV[1], 'a', a, 'd', ARGV[4])
return 1
