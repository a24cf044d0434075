-- ARGV: run id, round, server, "1" if it can ask the catalog, how many nodes at most. Returns "over" if the round is; "wait";
-- "finish" and nodes that this server has to restore; or "end" if all are.
local run, round, server = ARGV[1], ARGV[2], ARGV[3]
local key = base .. 'heal'
local heal = call('HMGET', key, 'id', 'run', 'closed', 'deadline', 'window', 'knows', 'bound')
if heal[1] ~= round or heal[2] ~= run then return {'over'} end
local now = milliseconds()
if not heal[3] then
  local missing = #call('SDIFF', key .. ':e', key .. ':d')
  local is_ready = missing == 0 and (heal[6] or now >= num(heal[5]))
  if not is_ready and now < num(heal[4]) then return {'wait'} end
  call('HSET', key, 'closed', '1', 'missing', missing)
end
-- One that can ask the catalog has to finish it, unless none does.
if heal[7] and ARGV[4] ~= '1' and now < num(heal[4]) + 5000 then return {'wait'} end
local finisher = call('GET', key .. ':f')
if finisher and finisher ~= server then return {'wait'} end
call('SET', key .. ':f', server, 'PX', 2000)
if call('HLEN', key .. ':h') == 0 then return {'end'} end
local answer = call('HRANDFIELD', key .. ':h', ARGV[5])
table.insert(answer, 1, 'finish')
return answer
