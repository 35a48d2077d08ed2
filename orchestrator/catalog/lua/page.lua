#!lua flags=no-writes
-- What a reader lacks, as it lies here. KEYS 1 version, 2 tools, 3 changed, 4 gone, 5 hashes
-- ARGV 1 the version that it knows, 2 the most names with rows, 3 the most names
-- Gives the version, and name, hash, row each (no hash, no row: withdrawn); or the version, nothing, and the names alone, to be
-- read page by page, when they are many; or the version only, when the reader must read everything.
local version = redis.call('GET', KEYS[1])
local epoch, number = string.match(ARGV[1], '^(%w+):(%d+):')
local now, latest, floor = string.match(version or '', '^(%w+):(%d+):(%d+)$')
if not epoch or epoch ~= now or tonumber(number) < tonumber(floor) then return {version} end
if tonumber(number) > tonumber(latest) then return {version} end -- this store lost changes, as after a restore

local names, with_rows, most = {}, tonumber(ARGV[2]), tonumber(ARGV[3])
for _, key in ipairs({KEYS[3], KEYS[4]}) do
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. number, '+inf', 'LIMIT', 0, most + 1)) do
    names[#names + 1] = name
  end
end
if #names > most then return {version} end
if #names > with_rows then return {version, {}, names} end
local rows = {}
for _, name in ipairs(names) do
  rows[#rows + 1] = name
  rows[#rows + 1] = redis.call('HGET', KEYS[5], name)
  rows[#rows + 1] = redis.call('HGET', KEYS[2], name)
end
return {version, rows}
