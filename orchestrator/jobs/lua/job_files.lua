#!lua flags=allow-oom
-- Notes which files an attempt of a call made, while its job is kept.   KEYS 1 data   ARGV 1 field, 2 value
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
