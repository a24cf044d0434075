-- ARGV: run id, round, server, seconds that clean nodes are remembered, records at most, the event of a lost record, its time; then
-- nodes and how far each is persisted as the catalog knows it. Restores them; may be done again, also by another server.
-- Returns "ok", or "lost" if another server finishes the round.
local run, round, server, remember, budget = ARGV[1], ARGV[2], ARGV[3], ARGV[4], num(ARGV[5])
local key = base .. 'heal'
local heal = call('HMGET', key, 'id', 'run', 'missing')
if heal[1] ~= round or heal[2] ~= run or call('GET', key .. ':f') ~= server then return 'lost' end
call('PEXPIRE', key .. ':f', 2000)

local has_batches = call('EXISTS', key .. ':n') == 1

local function done(node) -- nothing more is to be restored
  call('HDEL', key .. ':h', node)
  call('DEL', key .. ':r:' .. node)
end

-- A hole between records that servers know is a batch that was done and not answered, if every server takes part and none has dropped
-- records. Its server has it still, and does not know its sequences; they are above those of its last batch that was answered.
local function fill(node, head, upto)
  local found = has_batches and call('HGETALL', key .. ':q:' .. node) or {}
  if #found == 0 or num(heal[3]) > 0 or num(call('HGET', key .. ':u', node)) > head then return end
  call('DEL', key .. ':q:' .. node)
  local batches = {}
  for i = 1, #found, 2 do
    local values = cmsgpack.unpack(found[i + 1])
    batches[#batches + 1] = {name = found[i], after = values[1], drafts = values[2]}
  end
  local function put(batch, sequence)
    for i, draft in ipairs(batch.drafts) do call('HSET', key .. ':r:' .. node, text(sequence + i), draft) end
    call('HSET', base .. 'a:' .. batch.name, node, text(sequence))
    call('EXPIRE', base .. 'a:' .. batch.name, 3600)
    batch.after = math.huge -- it is in its place
    return sequence + #batch.drafts
  end
  local at = head + 1
  while at <= upto do
    local first = at
    while at <= upto and call('HEXISTS', key .. ':r:' .. node, text(at)) == 0 do at = at + 1 end
    local length, possible, exact, sum = at - first, {}, nil, 0
    for _, batch in ipairs(batches) do
      if length > 0 and batch.after < first then
        possible[#possible + 1] = batch
        sum = sum + #batch.drafts
        if #batch.drafts == length then exact = batch end
      end
    end
    if exact then
      put(exact, first - 1)
    elseif length > 0 and sum == length then -- all of them, in an order that is not known
      local sequence = first - 1
      for _, batch in ipairs(possible) do sequence = put(batch, sequence) end
    end
    if #possible > 1 then call('HSET', key, 'unsure', '1') end
    at = at + 1
  end
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
  local floor = math.max(persisted, num(call('HGET', key .. ':s', node)))
  if not found and not state[1] and floor >= num(upto) then -- most nodes of an emptied Redis: nothing is here, nor to be restored
    floor = text(floor)
    call('SET', head_key, floor, 'EX', remember)
    call('HSET', state_key, 's', floor, 'a', text(num(floor) + 1), 'b', '0', 'g', round, 'o', floor)
    call('EXPIRE', state_key, remember)
    call('PUBLISH', base .. 'c:' .. node, 's' .. floor)
    call('HDEL', key .. ':h', node)
    return
  end
  if not found then
    forget_records(node, bytes)
    settled, first, bytes = 0, 1, 0
  end
  local was_clean = head == settled
  floor = math.max(settled, floor)
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
  if state[4] ~= round then
    fill(node, head, num(upto))
    call('HSET', state_key, 'g', round, 'o', text(head))
  end

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
