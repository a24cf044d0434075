-- ARGV: life, worker, milliseconds that a lease holds, how many at most. Returns node, fence, head, settled of each leased node.
-- The fence of a node stays while the same worker leases it, unless it is not above those that stores have seen.
if not alive(ARGV[1]) then return HEAL end
local worker, ttl, limit = ARGV[2], num(ARGV[3]), num(ARGV[4])
local now, above = milliseconds(), num(call('GET', base .. 'above'))
for _, node in ipairs(call('ZRANGEBYSCORE', base .. 'leased', '-inf', now)) do
  call('ZREM', base .. 'leased', node)
  call('ZADD', base .. 'free', call('INCR', base .. 'turn'), node)
end
local answer, taken = {}, 0
local function take(node)
  local state_key = base .. 'n:' .. node
  local state = call('HMGET', state_key, 's', 'w', 'l')
  local fence = state[3]
  if state[2] ~= worker or num(fence) <= above then
    fence = next_fence()
    call('HSET', state_key, 'w', worker, 'l', fence)
  end
  call('HSET', state_key, 'f', fence)
  call('ZREM', base .. 'free', node)
  call('ZADD', base .. 'leased', now + ttl, node)
  taken = taken + 1
  for _, value in ipairs({node, fence, call('GET', base .. 'h:' .. node), state[1]}) do answer[#answer + 1] = value end
end
for _, node in ipairs(call('ZRANGE', base .. 'wanted', 0, -1)) do
  if taken >= limit then break end
  if call('ZSCORE', base .. 'free', node) then take(node) end
end
if taken < limit then
  for _, node in ipairs(call('ZRANGE', base .. 'free', 0, limit - taken - 1)) do take(node) end
end
return answer
