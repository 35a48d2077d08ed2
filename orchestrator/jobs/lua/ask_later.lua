#!lua flags=allow-oom
-- A planner has no place for a request now: it is offered again the later, the more wait, so that those that wait do not keep it
-- from plans that need no model.   KEYS 1 accepted   ARGV 1 job, 2 least pause (ms), 3 pause for each that waits (ms), 4 what is added to the
-- time at which a taken job is offered again
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local pause = math.max(tonumber(ARGV[2]), redis.call('ZCARD', KEYS[1]) * tonumber(ARGV[3]))
return redis.call('ZADD', KEYS[1], 'XX', tonumber(ARGV[4]) + now + pause, ARGV[1])
