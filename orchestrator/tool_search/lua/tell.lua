-- A use is told. Told again under its id, it changes nothing.
-- KEYS as in feedback.lua; ARGV 1 id, 2 tenant, 3 the use as JSON, 4 an epoch for a new log, 5 the most uses of a tenant, 6 the most entries
-- Gives when it was told
-- include feedback
local name = named(ARGV[2])
local known = redis.call('HGET', STATE, name .. ARGV[1])
if known then return cjson.decode(redis.call('HGET', ENTRIES, known)).at end

local time = redis.call('TIME')
local at = string.format('%d.%06d', time[1], time[2])
local number = append({id = ARGV[1], tenant = ARGV[2], at = at, use = ARGV[3]}, ARGV[4])
redis.call('HSET', STATE, name .. ARGV[1], number)
redis.call('ZADD', OWN, 0, name .. string.format('%016d', number))
if redis.call('ZLEXCOUNT', OWN, '[' .. name, '[' .. name .. '~') > tonumber(ARGV[5]) then
  local first = redis.call('ZRANGEBYLEX', OWN, '[' .. name, '[' .. name .. '~', 'LIMIT', 0, 1)[1]
  forget(tonumber(string.sub(first, #name + 1)))
end
while redis.call('ZCARD', LOG) > tonumber(ARGV[6]) do forget(tonumber(redis.call('ZRANGE', LOG, 0, 0)[1])) end
return at
