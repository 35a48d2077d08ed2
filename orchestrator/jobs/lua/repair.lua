#!lua flags=allow-oom
-- include ledger
-- The reconciler repairs one call, if it is still in the state that looked broken. Answers {verdict, calls to publish, what to release}.
-- ARGV 6 kind lost|due|queued|aged, 7 call, 8 attempt, 9 attempts that may be lost, 10 publish time seen (queued, aged), 11 lease (ms), 12 wait for a key (ms)
local kind, call, attempt = ARGV[6], ARGV[7], ARGV[8]
local member = JOB .. '|' .. call .. '|' .. attempt
local st, a, tries, lost, since = call_of(call)
local alive = get('st') == 'running' or get('st') == 'waiting'
local current = alive and text(a) == attempt
if kind == 'lost' then
  local due = redis.call('ZSCORE', LEASES, member)
  if not due or tonumber(due) > now then return {'beating', {}} end
  if now - tonumber(due) > 10 * tonumber(ARGV[11]) then  -- the clock jumped, or nobody looked for long: it may still beat
    redis.call('ZADD', LEASES, now + tonumber(ARGV[11]), member)
    return {'asked again', {}}
  end
  redis.call('ZREM', LEASES, member)
  drop_key(call, attempt)
  if not current or st ~= 'r' then return {'stale', {}, wakes()} end
  local s = step_of(call)
  local p = spec(s)
  local over = now - since >= p.to
  if p.ef == 'once' then
    set_call(call, 'u', a, tries, lost + 1)
    local err = cjson.encode({code = 'unknown', step = s, call = call, attempt = a,
      message = 'the worker was lost while tool `' .. p.tool .. '` ran; its effect may have happened',
      next = 'find out, then `toolweaver resolve ' .. JOB .. ' ' .. call .. ' --happened` or `--retry`'})
    note_error(call, err)
    inc('live', -1); inc('un', 1); unpublish(p)
    event('call.unknown', s, call, a, '{"error":' .. err .. '}')
    if p.par then tell_maker(p, call) end
  elseif over and tries + 1 > p.rm then
    fail_call(call, a, tries + 1, lost, cjson.encode({code = 'timeout', step = s, call = call, attempt = a,
      message = 'tool `' .. p.tool .. '` ran longer than its timeout_s of ' .. string.format('%g', p.to / 1000),
      next = 'raise `timeout_s` of the step or give the tool less to do'}))
  elseif lost + 1 >= tonumber(ARGV[9]) then
    fail_call(call, a, tries, lost + 1, cjson.encode({code = 'poison', step = s, call = call, attempt = a,
      message = 'tool `' .. p.tool .. '` took its worker down ' .. text(lost + 1) .. ' times; the call is not tried again',
      next = 'look at the worker\'s log for a crash or the out-of-memory killer'}))
  else
    enqueue(call, a + 1, tries + (over and 1 or 0), lost + 1)
  end
elseif kind == 'due' then
  local entry = get('ks:' .. call) or ''  -- it waits for a key
  if not redis.call('ZSCORE', TIMERS, member) then return {'stale', {}} end
  if not current or st ~= 'w' then
    redis.call('ZREM', TIMERS, member)
    if entry ~= '' and redis.call('ZREM', PARKED, entry) == 1 then freed[parts_of(entry)] = 0 end
    return {'stale', {}, wakes()}
  end
  local gate = entry ~= '' and parts_of(entry)
  if gate and (#holders(gate) > 0 or first_waiting(gate) ~= entry) then  -- it will be told; or the first in line asks for all
    redis.call('ZADD', TIMERS, now + tonumber(ARGV[12]), member)
    return {'waits', {}}
  end
  redis.call('ZREM', TIMERS, member)
  wait_over(call, a, tries, lost)
else
  local p = get('s:' .. step_of(call)) and spec(step_of(call))
  if p then
    local seen = redis.call('ZSCORE', queued_key(p), member)
    if not seen or text(tonumber(seen)) ~= ARGV[10] then return {'moved', {}} end
    redis.call('ZREM', queued_key(p), member)
  end
  if not current or st ~= 'q' then return {'stale', {}} end
  enqueue(call, a + 1, tries, lost, kind == 'aged' and 0 or nil)
end
return {'ok', settle()}
