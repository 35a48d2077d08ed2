-- What both scripts of the catalog share.
-- KEYS 1 version 2 tools 3 hashes 4 owners 5 changed 6 gone 7 former 8 versions
local VERSION, TOOLS, HASHES, OWNERS, CHANGED, GONE, FORMER, VERSIONS = unpack(KEYS, 1, 8)
local KEPT = 4 -- former versions of a tool, beside the present one
local MOST_GONE = 10000

local epoch, number, floor = string.match(redis.call('GET', VERSION) or '', '^(%w+):(%d+):(%d+)$')
-- A new catalog counts on from the time in seconds: beyond all numbers of one that was there before the store was emptied, so that
-- who asks for its own change by number is never answered from the former one, nor waits for a number that does not come.
number, floor = tonumber(number or redis.call('TIME')[1]), tonumber(floor or 0)
local touched = false

local function next_number()
  if not touched then number = number + 1; touched = true end
  return number
end

-- The present row becomes a former one.
local function keep(name)
  local hash, row = redis.call('HGET', HASHES, name), redis.call('HGET', TOOLS, name)
  if not hash or not row then return end
  local hashes, n = {hash}, 1
  for known in string.gmatch(redis.call('HGET', VERSIONS, name) or '', '%S+') do
    if known ~= hash then
      n = n + 1
      if n <= KEPT then hashes[n] = known else redis.call('HDEL', FORMER, name .. '@' .. known) end
    end
  end
  redis.call('HSET', FORMER, name .. '@' .. hash, row)
  redis.call('HSET', VERSIONS, name, table.concat(hashes, ' '))
end

local function remove(name)
  keep(name)
  redis.call('HDEL', TOOLS, name)
  redis.call('HDEL', HASHES, name)
  redis.call('HDEL', OWNERS, name)
  redis.call('ZREM', CHANGED, name)
  redis.call('ZADD', GONE, next_number(), name)
end

-- What was withdrawn long ago is forgotten; whoever knows only what was before reads everything again.
local function forget()
  local over = redis.call('ZCARD', GONE) - MOST_GONE
  if over <= 0 then return end
  local old = redis.call('ZRANGE', GONE, 0, over + MOST_GONE / 2 - 1, 'WITHSCORES')
  for i = 1, #old, 2 do
    local name = old[i]
    for known in string.gmatch(redis.call('HGET', VERSIONS, name) or '', '%S+') do
      redis.call('HDEL', FORMER, name .. '@' .. known)
    end
    redis.call('HDEL', VERSIONS, name)
    redis.call('ZREM', GONE, name)
    floor = tonumber(old[i + 1])
  end
end

local function finish(new_epoch)
  if not touched then return end
  forget()
  redis.call('SET', VERSION, string.format('%s:%d:%d', epoch or new_epoch, number, floor))
end
