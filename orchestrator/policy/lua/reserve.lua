-- A place among the active jobs of a tenant. KEYS 1 active jobs   ARGV 1 token, 2 most
-- Answers 1 when there was one.
local clock = redis.call('TIME')
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], clock[1] * 1000 + math.floor(clock[2] / 1000), ARGV[1])
return 1
