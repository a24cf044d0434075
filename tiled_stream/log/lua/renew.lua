-- ARGV: node, fence, milliseconds more. Returns 1, or 0 if the lease is lost.
local node = ARGV[1]
if call('HGET', base .. 'n:' .. node, 'f') ~= ARGV[2] then return 0 end
call('ZREM', base .. 'free', node)
call('ZADD', base .. 'leased', milliseconds() + num(ARGV[3]), node)
return 1
