-- ARGV: life. Something is about to be done in it: it is not fresh any more.
if not alive(ARGV[1]) then return HEAL end
call('DEL', base .. 'fresh')
return 1
