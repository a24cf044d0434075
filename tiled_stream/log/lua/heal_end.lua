-- ARGV: run id, round, server, a new epoch. The log is whole again; the round is its generation. The epoch stays if nothing was lost
-- and every server took part that may know of more. Returns "lost" if this server does not finish the round, else "ok", records
-- restored, records lost, servers that did not take part.
local run, round, server = ARGV[1], ARGV[2], ARGV[3]
local key = base .. 'heal'
local heal = call('HMGET', key, 'id', 'run', 'closed', 'missing', 'healed', 'lost', 'unsure')
if heal[1] ~= round or heal[2] ~= run or not heal[3] or call('GET', key .. ':f') ~= server then return {'lost'} end
if call('HLEN', key .. ':h') > 0 then return {'lost'} end
local epochs, epoch = call('SMEMBERS', key .. ':p'), call('GET', base .. 'epoch')
local is_same = #epochs <= 1 and not (epoch and epochs[1] and epoch ~= epochs[1])
if is_same then epoch = epochs[1] or epoch end
if not is_same or not epoch or num(heal[4]) > 0 or num(heal[6]) > 0 or heal[7] then epoch = ARGV[4] end
call('SET', base .. 'epoch', epoch)
local generations = call('SMEMBERS', key .. ':g')
if #generations == 1 then call('SET', base .. 'previous', generations[1]) else call('DEL', base .. 'previous') end
call('SET', base .. 'fence', text(math.max(microseconds(), num(call('GET', base .. 'fence')))))
for _, member in ipairs(call('SMEMBERS', key .. ':d')) do call('ZADD', base .. 'servers', milliseconds(), member) end
call('SET', base .. 'life', run .. ':' .. round)
for _, node in ipairs(call('SMEMBERS', key .. ':n')) do call('DEL', key .. ':q:' .. node) end
for _, name in ipairs({'', ':e', ':d', ':f', ':p', ':g', ':h', ':s', ':u', ':n'}) do call('DEL', key .. name) end
call('PUBLISH', base .. 'dirty', 'd')
return {'ok', heal[5] or '0', heal[6] or '0', heal[4]}
