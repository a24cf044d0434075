-- ARGV: run id of this Redis server, generation that the caller took part in ("" for none), id of a new round, milliseconds until its
-- deadline, milliseconds that it waits for servers that know more, a node and the head that the caller has seen of it ("" for none),
-- "1" if a log that is fresh must not be taken for a new one, a new epoch.
-- Returns "alive", generation, epoch, generation before ("" if that is unknown), "1" if it is fresh, "1" if it was begun here; or
-- "round", the id of the round under way, "1" if it was opened here.
local run, round = ARGV[1], ARGV[3]
local life = ARGV[2] ~= '' and run .. ':' .. ARGV[2] or ''
local found, is_fresh = call('GET', base .. 'life'), call('EXISTS', base .. 'fresh') == 1
local heal = call('HMGET', base .. 'heal', 'id', 'run')

local function answer_alive(life_now, is_begun)
  local generation = life_now:match(':(.*)')
  return {'alive', generation, call('GET', base .. 'epoch'), call('GET', base .. 'previous') or '', is_fresh and '1' or '',
    is_begun and '1' or ''}
end

if found and found:sub(1, #run + 1) == run .. ':' then
  local head = found == life and ARGV[6] ~= '' and call('GET', base .. 'h:' .. ARGV[6])
  local has_lost = head and head ~= '-' and num(head) < num(ARGV[7])
  local is_replaced = is_fresh and ((life ~= '' and found ~= life) or ARGV[8] == '1')
  if not has_lost and not is_replaced then return answer_alive(found) end
elseif life == '' and not found and not heal[1] and call('EXISTS', base .. 'epoch', base .. 'servers') == 0 then
  is_fresh = true -- nothing is here, and the caller knows of nothing
  call('SET', base .. 'life', run .. ':' .. round)
  call('SET', base .. 'fresh', '1')
  call('SET', base .. 'epoch', ARGV[9])
  return answer_alive(run .. ':' .. round, true)
end

if heal[1] and heal[2] ~= run then -- opened on a server that is not the master any more: perhaps not all of it is here
  for _, node in ipairs(call('HKEYS', base .. 'heal:h')) do call('DEL', base .. 'heal:r:' .. node) end
  for _, node in ipairs(call('SMEMBERS', base .. 'heal:n')) do call('DEL', base .. 'heal:q:' .. node) end
  for _, name in ipairs({'', ':e', ':d', ':f', ':p', ':g', ':h', ':s', ':u', ':n'}) do call('DEL', base .. 'heal' .. name) end
  heal = {}
end
local id_now = heal[1]
if not id_now then
  local now = milliseconds()
  call('HSET', base .. 'heal', 'id', round, 'run', run, 'deadline', text(now + ARGV[4]), 'window', text(now + ARGV[5]))
  -- Servers that were alive when this was written last; those that open the round tell of others.
  local last = call('ZREVRANGE', base .. 'servers', 0, 0, 'WITHSCORES')[2]
  if last then
    for _, server in ipairs(call('ZRANGEBYSCORE', base .. 'servers', num(last) - 5000, '+inf')) do
      call('SADD', base .. 'heal:e', server)
    end
  end
  if is_fresh then call('DEL', base .. 'epoch') end
  id_now = round
end
call('DEL', base .. 'life', base .. 'fresh')
call('PUBLISH', base .. 'dirty', 'x') -- other servers look, and find that they are needed
return {'round', id_now, heal[1] and '' or '1'}
