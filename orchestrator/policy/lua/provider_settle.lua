#!lua flags=allow-oom
-- What became of a place. ARGV 1 id, 2 tokens that were reserved, 3 real ones ('': not known, '-': never sent), 4 window in ms
-- A request that ended had arrived by now, so its place leaves one window from now at the latest.
-- include provider_window
local id, reserved, real, window = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local it, leaves = place(id), now + window + 1
if it and it.settled then return end
if real == '-' then
  if it then drop(id, it) end
  return
end
local tokens = tonumber(real) or reserved
if it then
  if tokens <= it.t then leaves = math.min(leaves, tonumber(redis.call('ZSCORE', KEYS[1], id))) end
  put(id, it.r, tokens, 1, leaves)
  count(0, tokens - it.t, -1)
elseif tokens > reserved then -- it took longer than a window; what it used beyond its place counts from now
  put(id, 0, tokens - reserved, 1, leaves)
  count(0, tokens - reserved, 0)
end
keep(2 * window)
