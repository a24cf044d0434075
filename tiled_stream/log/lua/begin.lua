-- ARGV: a new epoch, an epoch that is known to have lost records ("" for none). Returns the epoch in force.
local epoch = epoch_or(ARGV[1])
if epoch == ARGV[2] then
  epoch = ARGV[1]
  call('SET', base .. 'epoch', epoch)
end
return epoch
