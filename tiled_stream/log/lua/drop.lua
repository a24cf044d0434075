-- ARGV: life, seconds that a dropped node is remembered, nodes. They are gone: nothing of them stays but that.
if not alive(ARGV[1]) then return HEAL end
for i = 3, #ARGV do
  local node = ARGV[i]
  local found = call('GET', base .. 'h:' .. node)
  if found ~= '-' then
    local state = call('HMGET', base .. 'n:' .. node, 's', 'b')
    forget_records(node, num(state[2]))
    call('DECRBY', base .. 'owed', text(num(found) - num(state[1])))
    call('DEL', base .. 'n:' .. node)
    call('SET', base .. 'h:' .. node, '-', 'EX', ARGV[2])
    clean(node)
    call('PUBLISH', base .. 'c:' .. node, 'g')
  end
end
return 0
