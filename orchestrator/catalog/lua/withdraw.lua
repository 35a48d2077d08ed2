-- Takes tools out. KEYS 1-8 as in catalog.lua; ARGV 1 whose they must be, or '', 2 an epoch for a new catalog, then names
-- Gives the names that were there.
-- include catalog
local removed = {}
for i = 3, #ARGV do
  local name, owner = ARGV[i], redis.call('HGET', OWNERS, ARGV[i])
  if redis.call('HEXISTS', TOOLS, name) == 1 and (ARGV[1] == '' or owner == ARGV[1]) then
    remove(name)
    removed[#removed + 1] = name
  end
end
finish(ARGV[2])
return removed
