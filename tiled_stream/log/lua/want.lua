-- ARGV: life, node, sequence. Returns 1 if that is settled already, or nothing is owed; else the node is marked as wanted.
if not alive(ARGV[1]) then return HEAL end
local node = ARGV[2]
if not call('ZSCORE', base .. 'since', node) then return 1 end
if num(call('HGET', base .. 'n:' .. node, 's')) >= num(ARGV[3]) then return 1 end
call('ZADD', base .. 'wanted', 'GT', ARGV[3], node)
call('PUBLISH', base .. 'dirty', 'w')
return 0
