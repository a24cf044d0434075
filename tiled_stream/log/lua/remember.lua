-- ARGV: life, revision of the catalog. The highest one is kept.
if not alive(ARGV[1]) then return HEAL end
if num(ARGV[2]) > num(call('GET', base .. 'revision')) then call('SET', base .. 'revision', ARGV[2]) end
return 1
