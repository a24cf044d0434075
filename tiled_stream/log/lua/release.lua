-- ARGV: node, fence, milliseconds until it can be claimed again. The lease is given back; nothing if it was lost.
local node, state_key = ARGV[1], base .. 'n:' .. ARGV[1]
if call('HGET', state_key, 'f') ~= ARGV[2] then return 0 end
call('HDEL', state_key, 'f')
offer(node)
if num(ARGV[3]) > 0 then
  call('ZREM', base .. 'free', node)
  call('ZADD', base .. 'leased', milliseconds() + num(ARGV[3]), node)
end
return 1
