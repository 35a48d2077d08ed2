-- The window of one provider: what it was asked lately, and who waits. Pasted into the scripts that change it.
-- KEYS 1 places by when they leave, 2 places: `requests tokens settled`, 3 sums: r requests, t tokens, o open places,
-- q last order, p paused until,
-- 4 tickets by their order, 5 tickets: `lease tokens`
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function count(requests, tokens, open)
  if requests ~= 0 then redis.call('HINCRBY', KEYS[3], 'r', requests) end
  if tokens ~= 0 then redis.call('HINCRBY', KEYS[3], 't', tokens) end
  if open ~= 0 then redis.call('HINCRBY', KEYS[3], 'o', open) end
end

local function place(id)
  local r, t, s = (redis.call('HGET', KEYS[2], id) or ''):match('^(%d) (%d+) (%d)$')
  if r then return {r = tonumber(r), t = tonumber(t), settled = s == '1'} end
end

local function put(id, requests, tokens, settled, leaves)
  redis.call('HSET', KEYS[2], id, string.format('%d %d %d', requests, tokens, settled))
  redis.call('ZADD', KEYS[1], string.format('%d', leaves), id)
end

local function drop(id, it)
  redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
  count(-it.r, -it.t, it.settled and 0 or -1)
end

local function let_leave()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do drop(id, place(id)) end
end

local function forget(ticket)
  redis.call('ZREM', KEYS[4], ticket)
  redis.call('HDEL', KEYS[5], ticket)
end

local function keep(ms)
  for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], string.format('%d', ms)) end
end
