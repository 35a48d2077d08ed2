#!lua flags=allow-oom
-- A job names a file: it is kept as long as the job. Answers 0 when the tenant has no such file.   KEYS 1 blob, 2 its jobs   ARGV 1 job
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[2], clock[1] * 1000 + math.floor(clock[2] / 1000), ARGV[1])
return 1
