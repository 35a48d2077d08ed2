-- Whether the planner that holds a token may still decide on a request. Included after `ledger`.
local function not_mine(token)
  if (get('rq_token') or '') ~= token then return 'fenced' end
  local st, rq = get('st'), get('rq')
  return not (st == 'planning' and rq == 'p' or st == 'running' and rq == 'a') and 'job ' .. st
end
local function give_back() set('rq_token', ''); set('rq_lease', 0) end
local function count_lost_call()  -- a request to a model that was on its way when its planner died, or its job ended
  local lost = redis.call('HGET', DATA, 'sent')
  if not lost then return end
  redis.call('HDEL', DATA, 'sent', 'sent_id')
  redis.call('HSET', DATA, 'u:' .. inc('rq_calls', 1), lost)
end
local function forget_replies()  -- nothing of what was asked will be asked again
  local last = num('rq_replies') or 0
  for n = math.max(1, last - 100), last do  -- few are kept, see `ask_reply`
    local digest = redis.call('HGET', DATA, 'mn:' .. n)
    if digest then redis.call('HDEL', DATA, 'mn:' .. n, 'm:' .. digest) end
  end
end
