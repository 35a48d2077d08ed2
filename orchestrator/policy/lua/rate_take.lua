#!lua flags=allow-oom
-- One more job or program in the windows of its user, its tenant and all: in each of them, or in none.
-- KEYS 1 user, 2 tenant, 3 all: sorted sets by when each was begun   4 the program that its job covers
-- ARGV 1 name, 2 window in ms, 3-5 most in each window (-1: any), 6 '' for a job, else for how many ms the fourth key is kept
-- Answers {} when it was taken, else {which window, milliseconds until there is room}. Who has a place keeps it.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local window = tonumber(ARGV[2])
if ARGV[6] ~= '' then
  redis.call('SET', KEYS[4], ARGV[1], 'NX', 'PX', ARGV[6])
  if redis.call('GET', KEYS[4]) == ARGV[1] then return {} end
end
local which, wait, has = 0, 0, true
for i = 1, 3 do
  local most = tonumber(ARGV[2 + i])
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', string.format('%d', now - window))
  if most >= 0 and not redis.call('ZSCORE', KEYS[i], ARGV[1]) then
    has = false
    local over = redis.call('ZCARD', KEYS[i]) + 1 - most
    if over > 0 then
      local row = redis.call('ZRANGE', KEYS[i], over - 1, over - 1, 'WITHSCORES')
      local ms = row[2] and tonumber(row[2]) + window - now or window
      if ms > wait then which, wait = i, ms end
    end
  end
end
if which > 0 then return {which, math.max(1, wait)} end
if has then return {} end
for i = 1, 3 do
  if tonumber(ARGV[2 + i]) >= 0 then
    redis.call('ZADD', KEYS[i], 'NX', string.format('%d', now), ARGV[1])
    redis.call('PEXPIRE', KEYS[i], window + 1000)
  end
end
return {}
