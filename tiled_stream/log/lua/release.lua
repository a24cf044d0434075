-- ARGV: life, node, fence, milliseconds until it can be claimed again. The lease is given back; nothing if it was lost.
if not alive(ARGV[1]) then return HEAL end
local node, state_key = ARGV[2], base .. 'n:' .. ARGV[2]
if call('HGET', state_key, 'f') ~= ARGV[3] then return 0 end
call('HDEL', state_key, 'f')
offer(node)
if num(ARGV[4]) > 0 then
  call('ZREM', base .. 'free', node)
  call('ZADD', base .. 'leased', milliseconds() + num(ARGV[4]), node)
end
return 1
