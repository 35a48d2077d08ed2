-- Uses are taken back: their text goes, and a mark tells whoever has read them.
-- KEYS as in feedback.lua; ARGV 1 tenant, 2 an epoch for a new log, then ids
-- Gives the ids that there were
-- include feedback
local gone = {}
for i = 3, #ARGV do
  local number = redis.call('HGET', STATE, named(ARGV[1]) .. ARGV[i])
  if number then
    forget(tonumber(number))
    gone[#gone + 1] = ARGV[i]
  end
end
if #gone > 0 then append({tenant = ARGV[1], gone = gone}, ARGV[2]) end
return gone
