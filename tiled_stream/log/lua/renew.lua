-- ARGV: life, node, fence, milliseconds more. Returns 1, or 0 if the lease is lost.
if not alive(ARGV[1]) then return HEAL end
local node = ARGV[2]
if call('HGET', base .. 'n:' .. node, 'f') ~= ARGV[3] then return 0 end
call('ZREM', base .. 'free', node)
call('ZADD', base .. 'leased', milliseconds() + num(ARGV[4]), node)
return 1
