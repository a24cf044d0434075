-- ARGV: life, id of a server, nodes. It is alive. Returns the epoch, the servers that are alive, and of each node the settled watermark ("": unknown,
-- "-": dropped).
if not alive(ARGV[1]) then return HEAL end
local now = milliseconds()
call('ZADD', base .. 'servers', now, ARGV[2])
call('ZREMRANGEBYSCORE', base .. 'servers', '-inf', now - 60000)
local settled = {}
for i = 3, #ARGV do
  settled[i - 2] = call('HGET', base .. 'n:' .. ARGV[i], 's') or (call('GET', base .. 'h:' .. ARGV[i]) == '-' and '-' or '')
end
return {call('GET', base .. 'epoch'), call('ZRANGEBYSCORE', base .. 'servers', now - 5000, '+inf'), settled}
