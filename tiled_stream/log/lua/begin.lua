-- ARGV: life, an epoch, a new one. If that is the epoch in force, the new one begins. Returns the epoch in force.
if not alive(ARGV[1]) then return HEAL end
if call('GET', base .. 'epoch') == ARGV[2] then call('SET', base .. 'epoch', ARGV[3]) end
return call('GET', base .. 'epoch')
