-- ARGV: milliseconds that a lease holds, how many at most. Returns node, fence, head, settled of each leased node.
local now, limit = milliseconds(), num(ARGV[2])
for _, node in ipairs(call('ZRANGEBYSCORE', base .. 'leased', '-inf', now)) do
  call('ZREM', base .. 'leased', node)
  call('ZADD', base .. 'free', call('INCR', base .. 'turn'), node)
end
local answer, taken = {}, 0
local function take(node)
  local fence = call('INCR', base .. 'fence')
  call('HSET', base .. 'n:' .. node, 'f', fence)
  call('ZREM', base .. 'free', node)
  call('ZADD', base .. 'leased', now + num(ARGV[1]), node)
  taken = taken + 1
  for _, value in ipairs({node, fence, call('GET', base .. 'h:' .. node), call('HGET', base .. 'n:' .. node, 's')}) do
    answer[#answer + 1] = tostring(value)
  end
end
for _, node in ipairs(call('ZRANGE', base .. 'wanted', 0, -1)) do
  if taken >= limit then break end
  if call('ZSCORE', base .. 'free', node) then take(node) end
end
if taken < limit then
  for _, node in ipairs(call('ZRANGE', base .. 'free', 0, limit - taken - 1)) do take(node) end
end
return answer
