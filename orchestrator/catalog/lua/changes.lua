#!lua flags=no-writes
-- What a reader lacks. KEYS 1 version, 2 tools, 3 changed, 4 gone; ARGV 1 the version that it knows, 2 the most names
-- Gives the version and name, row each (no row: withdrawn); only the version when the reader must read everything.
local version = redis.call('GET', KEYS[1])
local epoch, number = string.match(ARGV[1], '^(%w+):(%d+):')
local now, latest, floor = string.match(version or '', '^(%w+):(%d+):(%d+)$')
if not epoch or epoch ~= now or tonumber(number) < tonumber(floor) then return {version} end
if tonumber(number) > tonumber(latest) then return {version} end -- this store lost changes, as after a restore

local names = {}
for _, key in ipairs({KEYS[3], KEYS[4]}) do
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. number, '+inf', 'LIMIT', 0, tonumber(ARGV[2]) + 1)) do
    names[#names + 1] = name
  end
end
if #names > tonumber(ARGV[2]) then return {version} end
local pairs_of = {}
for _, name in ipairs(names) do
  pairs_of[#pairs_of + 1] = name
  pairs_of[#pairs_of + 1] = redis.call('HGET', KEYS[2], name)
end
return {version, pairs_of}
