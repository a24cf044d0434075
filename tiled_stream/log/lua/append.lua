-- ARGV: life, key of this writer, token of this batch, "1" if it was sent before, number of appends; for each append:
--   node, expected ("" for none), floor, known head, epoch in which it was known, epoch of the guards, number of guards,
--   number of drafts;
--   for each guard: node, head; for each draft: time, event, payload or token, how it lies (1 in the record, 0 beside it,
--   c and the number of bytes that the token stands for)
-- Returns the epoch, and for each append: what became of it (ok, conflict, moved, gone; lost: this log
-- has lost what it had acknowledged) and a sequence.
--
-- A batch that is sent twice (its answer was lost) is done once: the answer is kept beside the records, in the same step.
local life, writer, token = ARGV[1], base .. 'w:' .. ARGV[2], ARGV[3]
local kept = call('HMGET', writer, 'token', 'answer')
if kept[1] == token then return cmsgpack.unpack(kept[2]) end

if not alive(life) then return HEAL end
local epoch, generation = call('GET', base .. 'epoch'), life:match(':(.*)')
local answer = {epoch}
local assigned = {} -- restored while the log was healed, at sequences that follow these
if ARGV[4] == '1' then
  local found = call('HGETALL', base .. 'a:' .. ARGV[2] .. ':' .. token)
  for i = 1, #found, 2 do assigned[found[i]] = num(found[i + 1]) end
end
local at = 6

local function append(node, expected, floor, known, known_epoch, guards_epoch, guards, drafts)
  local first_guard, first_draft = at, at + 2 * guards
  at = first_draft + 4 * drafts
  if assigned[node] then
    assigned[node] = assigned[node] + drafts
    return 'ok', assigned[node]
  end
  local head_key, state_key = base .. 'h:' .. node, base .. 'n:' .. node
  local found = call('GET', head_key)
  if found == '-' then return 'gone', 0 end
  local head = num(found)
  local state = call('HMGET', state_key, 's', 'a', 'b', 'g')
  local settled, first, bytes = num(state[1]), num(state[2]), num(state[3])
  if not found then -- a new node, or one long forgotten
    forget_records(node, bytes)
    settled, first, bytes = 0, 1, 0
  end
  local low = math.max(head, floor)
  if known > low and known_epoch == epoch and found then return 'lost', low end
  if expected and expected ~= low then return 'conflict', low end
  if guards > 0 and guards_epoch ~= epoch then return 'moved', low end
  for place = first_guard, first_draft - 2, 2 do
    local stands = call('GET', base .. 'h:' .. ARGV[place])
    if stands == '-' or num(stands) > num(ARGV[place + 1]) then return 'moved', low end
  end

  local was_clean = head == settled
  if was_clean then low = math.max(low, known) end -- numbers of an earlier life are not given again
  if low > head then -- what lies between is persisted, or lost; whoever held a lease has lost it
    forget_records(node, bytes)
    if not was_clean then
      call('DECRBY', base .. 'owed', text(head - settled))
      call('ZREM', base .. 'since', node)
    end
    call('HDEL', state_key, 'f', 'w')
    call('PUBLISH', base .. 'c:' .. node, 's' .. text(low))
    head, settled, first, bytes = low, low, low + 1, 0
    was_clean = true
  end
  if state[4] ~= generation then call('HSET', state_key, 'g', generation, 'o', text(head)) end
  local was_empty = first > head
  local oldest = ARGV[first_draft]
  local added = 0
  for i = 0, drafts - 1 do
    local place = first_draft + 4 * i
    local time, event, payload = ARGV[place], ARGV[place + 1], ARGV[place + 2]
    head = head + 1
    added = added + add_record(node, head, time, event, payload, ARGV[place + 3])
  end
  call('SET', head_key, text(head))
  call('HSET', state_key, 's', text(settled), 'a', text(first), 'b', text(bytes + added))
  call('INCRBY', base .. 'bytes', added)
  call('INCRBY', base .. 'owed', drafts)
  if was_empty then call('ZADD', base .. 'retained', oldest, node) end
  if was_clean then
    call('PERSIST', state_key)
    call('ZADD', base .. 'since', oldest, node)
    offer(node)
  end
  call('PUBLISH', base .. 'c:' .. node, 'h' .. text(head))
  return 'ok', head
end

for _ = 1, num(ARGV[5]) do
  local node, expected = ARGV[at], ARGV[at + 1]
  local floor, known, known_epoch, drafts = num(ARGV[at + 2]), num(ARGV[at + 3]), ARGV[at + 4], num(ARGV[at + 7])
  local guards_epoch, guards = ARGV[at + 5], num(ARGV[at + 6])
  at = at + 8
  local outcome, sequence = append(node, expected ~= '' and num(expected), floor, known, known_epoch, guards_epoch, guards, drafts)
  answer[#answer + 1] = outcome
  answer[#answer + 1] = text(sequence)
end
call('HSET', writer, 'token', token, 'answer', cmsgpack.pack(answer))
call('EXPIRE', writer, 3600)
return answer
