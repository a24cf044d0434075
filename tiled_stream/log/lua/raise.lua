-- ARGV: life, a fence. Only higher ones are given from now on.
if not alive(ARGV[1]) then return HEAL end
local above = math.max(num(call('GET', base .. 'above')), num(ARGV[2]))
call('SET', base .. 'above', text(above))
call('SET', base .. 'fence', text(math.max(microseconds(), num(call('GET', base .. 'fence')), above)))
return 1
