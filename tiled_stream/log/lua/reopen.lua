-- ARGV: life, node, watermark. Only up to there is the node persisted. Returns the first sequence after it that is here (head + 1 if
-- none is), -1 if the node was dropped.
if not alive(ARGV[1]) then return HEAL end
local node, watermark = ARGV[2], num(ARGV[3])
local head_key, state_key = base .. 'h:' .. node, base .. 'n:' .. node
local found = call('GET', head_key)
if found == '-' then return -1 end
if not found then return 1 end
local head = num(found)
local state = call('HMGET', state_key, 's', 'a')
local settled, first = num(state[1]), math.max(1, num(state[2]))
if watermark < settled then
  local now = math.max(watermark, first - 1)
  call('HSET', state_key, 's', text(now))
  call('HDEL', state_key, 'f', 'w') -- the next lease has another fence, also for the same worker
  call('INCRBY', base .. 'owed', text(settled - now))
  call('PUBLISH', base .. 'c:' .. node, 's' .. text(now))
  if now < head then
    call('PERSIST', state_key)
    call('PERSIST', head_key)
    call('ZADD', base .. 'since', time_at(node, now + 1), node)
    if not call('ZSCORE', base .. 'free', node) then offer(node) end
  end
end
return math.min(math.max(first, watermark + 1), head + 1)
