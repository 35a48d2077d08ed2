#!lua flags=allow-oom
-- A token bucket by the clock of Redis. KEYS 1 bucket   ARGV 1 tokens a minute, 2 capacity
-- Answers 0 when a token was taken, else the milliseconds until there is one.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local rate, capacity = tonumber(ARGV[1]) / 60000, tonumber(ARGV[2])
local v = redis.call('HMGET', KEYS[1], 'n', 't')
local tokens, at = tonumber(v[1] or capacity), tonumber(v[2] or now)
tokens = math.min(capacity, tokens + math.max(0, now - at) * rate)
local wait = 0
if tokens >= 1 then tokens = tokens - 1 else wait = math.ceil((1 - tokens) / rate) end
redis.call('HSET', KEYS[1], 'n', string.format('%.6f', tokens), 't', string.format('%d', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(capacity / rate) + 1000)
return wait
