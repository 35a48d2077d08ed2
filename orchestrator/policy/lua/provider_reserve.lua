#!lua flags=allow-oom
-- A place for one request in the window of a provider, for who is first in the queue or leaves enough to those before it.
-- ARGV 1 id, 2 ticket, 3 tokens, 4 most requests and 5 most tokens in a window (-1: any), 6 window, 7 slack and 8 grace in ms,
-- 9 whether it comes back after the first number of the answer ('1') or the second
-- Answers {} when it has one, else {ms to wait, ms after which to look again, 'requests', 'tokens' or 'paused'}.
-- include provider_window
local id, ticket, want = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most_r, most_t = tonumber(ARGV[4]), tonumber(ARGV[5])
local window, slack, grace = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

-- Those in the queue before an order: their number and tokens. Who did not come back in time has left.
local function before(order)
  local requests, tokens = 0, 0
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', '(' .. order)) do
    local lease, t = (redis.call('HGET', KEYS[5], other) or '0 0'):match('^(%d+) (%d+)$')
    if tonumber(lease) < now then forget(other) else requests, tokens = requests + 1, tokens + tonumber(t) end
    if most_r >= 0 and requests >= most_r then break end -- it waits for longer than this window can tell
  end
  return requests, tokens
end

-- When so many requests and tokens will have left.
local function when_left(requests, tokens)
  local from, leaves = 0, now + window
  while requests > 0 or tokens > 0 do
    local rows = redis.call('ZRANGE', KEYS[1], from, from + 99, 'WITHSCORES')
    if #rows == 0 then return now + window end
    for i = 1, #rows, 2 do
      local it = place(rows[i])
      requests, tokens, leaves = requests - it.r, tokens - it.t, tonumber(rows[i + 1])
      if requests <= 0 and tokens <= 0 then break end
    end
    from = from + 100
  end
  return leaves
end

local function wait(ms, again, reason)
  redis.call('HSET', KEYS[5], ticket, string.format('%d %d', now + (ARGV[9] == '1' and ms or math.min(ms, again)) + grace, want))
  keep(2 * window + ms + grace)
  return {ms, math.min(ms, again), reason}
end

let_leave()
if place(id) then return {} end -- this script was sent again
local sums = redis.call('HMGET', KEYS[3], 'r', 't', 'p', 'o')
local order = redis.call('ZSCORE', KEYS[4], ticket)
if not order then
  order = redis.call('HINCRBY', KEYS[3], 'q', 1)
  redis.call('ZADD', KEYS[4], order, ticket)
end
local paused = tonumber(sums[3] or 0) - now
if paused > 0 then return wait(paused, paused, 'paused') end
local requests, tokens = before(order)
local over_r = most_r < 0 and 0 or tonumber(sums[1] or 0) + requests + 1 - most_r
local over_t = most_t < 0 and 0 or tonumber(sums[2] or 0) + tokens + want - most_t
if over_r > 0 or over_t > 0 then
  local ms = math.max(1, when_left(over_r, over_t) - now)
  local may_change = over_t > 0 and tonumber(sums[4] or 0) > 0 -- an open place may give tokens back
  return wait(ms, may_change and math.ceil(window / 240) or ms, over_r > 0 and 'requests' or 'tokens')
end
forget(ticket)
put(id, 1, want, 0, now + slack + window + 1)
count(1, want, 1)
keep(2 * window + slack + math.max(0, paused))
return {}
