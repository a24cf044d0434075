-- ARGV: run id, round, server, seconds that clean nodes are remembered, records at most, the event of a lost record, its time; then
-- nodes and how far each is persisted as the catalog knows it. Restores them; may be done again, also by another server.
-- Returns "ok", or "lost" if another server finishes the round.
local run, round, server, remember, budget = ARGV[1], ARGV[2], ARGV[3], ARGV[4], num(ARGV[5])
local key = base .. 'heal'
local heal = call('HMGET', key, 'id', 'run')
if heal[1] ~= round or heal[2] ~= run or call('GET', key .. ':f') ~= server then return 'lost' end
call('PEXPIRE', key .. ':f', 2000)

local function done(node) -- nothing more is to be restored
  call('HDEL', key .. ':h', node)
  call('HDEL', key .. ':s', node)
  call('DEL', key .. ':r:' .. node)
end

local function gone(node, found, state)
  if found ~= '-' then
    forget_records(node, num(state[3]))
    call('DECRBY', base .. 'owed', text(num(found) - num(state[1])))
    call('DEL', base .. 'n:' .. node)
    call('SET', base .. 'h:' .. node, '-', 'EX', remember)
    clean(node)
    call('PUBLISH', base .. 'c:' .. node, 'g')
  end
  done(node)
end

local function restore(node, persisted)
  local upto, head_key, state_key = call('HGET', key .. ':h', node), base .. 'h:' .. node, base .. 'n:' .. node
  if not upto then return end
  local found, state = call('GET', head_key), call('HMGET', state_key, 's', 'a', 'b', 'g')
  if found == '-' or upto == '-' then return gone(node, found, state) end
  local head, settled, first, bytes = num(found), num(state[1]), num(state[2]), num(state[3])
  if not found then
    forget_records(node, bytes)
    settled, first, bytes = 0, 1, 0
  end
  local was_clean = head == settled
  local floor = math.max(settled, persisted, num(call('HGET', key .. ':s', node)))
  if floor > settled then -- persisted further than this Redis knows; a lease of what was here is void
    call('HDEL', state_key, 'f', 'w')
    call('DECRBY', base .. 'owed', text(math.min(floor, head) - settled))
    settled = floor
    if floor >= head then
      clean(node)
      was_clean = true
    else
      call('ZADD', base .. 'since', time_at(node, floor + 1), node)
      offer(node)
    end
    if floor > head then
      forget_records(node, bytes)
      head, first, bytes = floor, floor + 1, 0
    end
    call('PUBLISH', base .. 'c:' .. node, 's' .. text(settled))
  end
  if state[4] ~= round then call('HSET', state_key, 'g', round, 'o', text(head)) end

  local was_empty, begun, added, oldest = first > head, head, 0, nil
  upto = num(upto)
  while head < upto and budget > 0 do
    head, budget = head + 1, budget - 1
    local kept = call('HGET', key .. ':r:' .. node, text(head))
    local record = kept and cmsgpack.unpack(kept) or {ARGV[7], ARGV[6], '', '1'}
    added = added + add_record(node, head, record[1], record[2], record[3], record[4])
    oldest = oldest or record[1]
    call('HINCRBY', key, kept and 'healed' or 'lost', 1)
  end
  call('SET', head_key, text(head))
  call('HSET', state_key, 's', text(settled), 'a', text(first), 'b', text(bytes + added))
  if head > begun then
    call('INCRBY', base .. 'bytes', added)
    call('INCRBY', base .. 'owed', text(head - begun))
    if was_empty then call('ZADD', base .. 'retained', oldest, node) end
    if was_clean then
      call('ZADD', base .. 'since', oldest, node)
      offer(node)
    end
    call('PERSIST', state_key)
    call('PUBLISH', base .. 'c:' .. node, 'h' .. text(head))
  elseif head == settled then
    call('EXPIRE', state_key, remember)
    call('EXPIRE', head_key, remember)
  end
  if head >= upto then done(node) end
end

for i = 8, #ARGV, 2 do
  if budget <= 0 then break end
  restore(ARGV[i], num(ARGV[i + 1]))
end
return 'ok'
