-- ARGV: seconds that a dropped node is remembered, nodes. They are gone: nothing of them stays but that.
for i = 2, #ARGV do
  local node = ARGV[i]
  local found = call('GET', base .. 'h:' .. node)
  if found ~= '-' then
    local state = call('HMGET', base .. 'n:' .. node, 's', 'b')
    forget_records(node, num(state[2]))
    call('DECRBY', base .. 'owed', text(num(found) - num(state[1])))
    call('DEL', base .. 'n:' .. node)
    call('SET', base .. 'h:' .. node, '-', 'EX', ARGV[1])
    clean(node)
    call('PUBLISH', base .. 'c:' .. node, 'g')
  end
end
return 0
