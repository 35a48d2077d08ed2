-- Adds to counters of one hash, and notes errors. KEYS 1 the hash.
-- ARGV 1 errors, the latest first (JSON list, or ''), 2 how many are kept; then by sixes: field, how much, and for a field whose label
-- anybody may make up (else ''): the field of all others, what marks this value as known, where the known ones are counted, the limit
local h = KEYS[1]
redis.call('HSETNX', h, '["@since"]', redis.call('TIME')[1])
for i = 3, #ARGV, 6 do
  local field = ARGV[i]
  if ARGV[i + 2] ~= '' and redis.call('HEXISTS', h, ARGV[i + 3]) == 0 then
    if tonumber(redis.call('HGET', h, ARGV[i + 4]) or '0') >= tonumber(ARGV[i + 5]) then
      field = ARGV[i + 2]
    else
      redis.call('HSET', h, ARGV[i + 3], '1')
      redis.call('HINCRBY', h, ARGV[i + 4], 1)
    end
  end
  redis.call('HINCRBYFLOAT', h, field, ARGV[i + 1])
end
if ARGV[1] ~= '' then
  local errors = cjson.decode(ARGV[1])
  for _, e in ipairs(cjson.decode(redis.call('HGET', h, '["@errors"]') or '[]')) do errors[#errors + 1] = e end
  local kept = {}
  for i = 1, math.min(#errors, tonumber(ARGV[2])) do kept[i] = errors[i] end
  redis.call('HSET', h, '["@errors"]', cjson.encode(kept))
end
