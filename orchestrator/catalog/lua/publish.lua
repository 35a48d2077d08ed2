-- The tools of a source become these. Repeats change nothing.
-- KEYS 1-8 as in catalog.lua, 9 names of the source
-- ARGV 1 source, 2 its family (`pool:`), 3 whether what it no longer names goes, 4 an epoch for a new catalog, then name, hash, row each
-- Gives names added, changed, removed, and name, owner of each that another source owns.
-- include catalog
local OWN, source, family = KEYS[9], ARGV[1], ARGV[2]
local added, changed, removed, taken, now = {}, {}, {}, {}, {}

local function free(owner)
  -- Pools take over from each other: a tool may move to another pool, and its former one does not come to say so.
  return not owner or owner == source or (family == 'pool:' and string.sub(owner, 1, 5) == 'pool:')
end

for i = 5, #ARGV, 3 do
  local name, hash, row = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local owner, known = redis.call('HGET', OWNERS, name), redis.call('HGET', HASHES, name)
  now[name] = true
  if not free(owner) then
    taken[#taken + 1] = name
    taken[#taken + 1] = owner
  else
    if owner ~= source then redis.call('HSET', OWNERS, name, source); redis.call('SADD', OWN, name) end
    if known ~= hash then
      if known then keep(name); changed[#changed + 1] = name else added[#added + 1] = name end
      redis.call('HSET', TOOLS, name, row)
      redis.call('HSET', HASHES, name, hash)
      redis.call('ZREM', GONE, name)
      redis.call('ZADD', CHANGED, next_number(), name)
    end
  end
end

if ARGV[3] == '1' then
  for _, name in ipairs(redis.call('SMEMBERS', OWN)) do
    if not now[name] then
      if redis.call('HGET', OWNERS, name) == source then remove(name); removed[#removed + 1] = name end
      redis.call('SREM', OWN, name)
    end
  end
end
finish(ARGV[4])
return {added, changed, removed, taken}
