-- KEYS 1 log: numbers in order; 2 entries: by number, JSON `{id, tenant, at, use}` or `{tenant, gone}`; 3 state: number, epoch, and the
-- number of each `tenant id`; 4 uses of tenants, by name. A hash forgets what is deleted from it; a stream keeps the bytes a while.
local LOG, ENTRIES, STATE, OWN = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function named(tenant) return 'u' .. #tenant .. ':' .. tenant .. ' ' end

local function forget(number)
  local raw = redis.call('HGET', ENTRIES, number)
  local entry = raw and cjson.decode(raw)
  if entry and entry.id then
    redis.call('HDEL', STATE, named(entry.tenant) .. entry.id)
    redis.call('ZREM', OWN, named(entry.tenant) .. string.format('%016d', number))
  end
  redis.call('HDEL', ENTRIES, number)
  redis.call('ZREM', LOG, number)
end

local function append(entry, epoch)
  redis.call('HSETNX', STATE, 'epoch', epoch)
  local number = redis.call('HINCRBY', STATE, 'number', 1)
  redis.call('HSET', ENTRIES, number, cjson.encode(entry))
  redis.call('ZADD', LOG, number, number)
  return number
end
