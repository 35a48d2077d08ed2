#!lua flags=no-writes
-- The next entries behind a number, in order. KEYS 1 log, 2 entries; ARGV 1 the number, 2 the most
-- Gives number, entry each
local found = {}
for _, number in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = number
  found[#found + 1] = redis.call('HGET', KEYS[2], number)
end
return found
