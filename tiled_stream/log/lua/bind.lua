-- ARGV: life, identity of a deployment. A number is what older versions wrote. Returns the identity of the log.
if not alive(ARGV[1]) then return HEAL end
local bound = call('GET', base .. 'catalog')
if not bound or (bound ~= ARGV[2] and bound:match('^%-?%d+%.?%d*e?[+-]?%d*$')) then
  bound = ARGV[2]
  call('SET', base .. 'catalog', bound)
end
return bound
