#!lua flags=allow-oom
-- Nobody asks a provider for a while. ARGV 1 for ms
-- include provider_window
local till, ms = tonumber(redis.call('HGET', KEYS[3], 'p') or 0), tonumber(ARGV[1])
if now + ms > till then redis.call('HSET', KEYS[3], 'p', string.format('%d', now + ms)) end
keep(math.max(redis.call('PTTL', KEYS[3]), redis.call('PTTL', KEYS[1]), ms + 1000))
