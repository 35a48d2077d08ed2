-- Whether the planner that holds a token may still decide on a request. Included after `ledger`.
local function not_mine(token)
  if (get('rq_token') or '') ~= token then return 'fenced' end
  local st, rq = get('st'), get('rq')
  return not (st == 'planning' and rq == 'p' or st == 'running' and rq == 'a') and 'job ' .. st
end
local function give_back() set('rq_token', ''); set('rq_lease', 0) end
