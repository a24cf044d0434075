-- ARGV: life, bytes a node, bytes in all, oldest time that stays, how many records at most, nodes (none: all). Returns how many left, 1 if there
-- is more to do, and nodes and tokens of the bodies that these records named. Only settled records leave, oldest first.
if not alive(ARGV[1]) then return HEAL end
local node_bytes, total_bytes, cutoff, budget = num(ARGV[2]), num(ARGV[3]), num(ARGV[4]), num(ARGV[5])
local left, claims = 0, {}

local function trim(node, may_leave) -- from the front, while may_leave(time, bytes) says so
  local state_key = base .. 'n:' .. node
  if call('EXISTS', state_key) == 0 then -- long forgotten
    forget_records(node, 0)
    return
  end
  local state = call('HMGET', state_key, 's', 'a', 'b')
  local settled, first, bytes = num(state[1]), num(state[2]), num(state[3])
  local begun, before, stays = first, bytes, false
  while first <= settled and left < budget and not stays do
    local entries = call('XRANGE', base .. 'r:' .. node, id(first), id(settled), 'COUNT', 64)
    if #entries == 0 then break end
    for _, entry in ipairs(entries) do
      local fields = entry[2]
      if left >= budget or not may_leave(num(fields[2]), bytes) then
        stays = true
        break
      end
      if fields[7] == 'c' then
        claims[#claims + 1] = node
        claims[#claims + 1] = fields[8]
      end
      first, left = first + 1, left + 1
      bytes = bytes - num(fields[6]) - OVERHEAD
    end
  end
  if first == begun then return end
  call('HSET', state_key, 'a', text(first), 'b', text(bytes))
  if first > num(call('GET', base .. 'h:' .. node)) then
    forget_records(node, before)
    return
  end
  call('DECRBY', base .. 'bytes', text(before - bytes))
  call('XTRIM', base .. 'r:' .. node, 'MINID', id(first))
  call('XTRIM', base .. 'p:' .. node, 'MINID', id(first))
  call('ZADD', base .. 'retained', time_at(node, first), node)
  call('ZADD', base .. 'sizes', text(bytes), node)
end

local chosen, is_chosen = {}, {}
if #ARGV > 5 then
  for i = 6, #ARGV do
    chosen[#chosen + 1] = ARGV[i]
    is_chosen[ARGV[i]] = true
  end
else
  for _, node in ipairs(call('ZRANGEBYSCORE', base .. 'retained', '-inf', '(' .. ARGV[4])) do chosen[#chosen + 1] = node end
  for _, node in ipairs(call('ZRANGEBYSCORE', base .. 'sizes', '(' .. ARGV[2], '+inf')) do chosen[#chosen + 1] = node end
end
for _, node in ipairs(chosen) do
  if left >= budget then break end
  trim(node, function(time, bytes) return bytes > node_bytes or time < cutoff end)
end

-- All together: of the settled records the oldest leaves, wherever it is; a node gives way as long as its oldest is the oldest of all.
local function oldest_two()
  local best, best_time, next_time
  local from = 0
  repeat
    local page = call('ZRANGE', base .. 'retained', from, from + 255, 'WITHSCORES')
    for i = 1, #page, 2 do
      local node, time = page[i], num(page[i + 1])
      if #ARGV == 5 or is_chosen[node] then
        local state = call('HMGET', base .. 'n:' .. node, 's', 'a')
        if num(state[2]) <= num(state[1]) then
          if best then return best, time end
          best, best_time = node, time
        end
      end
    end
    from = from + 256
  until #page == 0
  return best, math.huge
end
while left < budget and num(call('GET', base .. 'bytes')) > total_bytes do
  local node, next_time = oldest_two()
  if not node then break end
  local before, over = left, num(call('GET', base .. 'bytes')) - total_bytes
  local bytes_before
  trim(node, function(time, bytes)
    bytes_before = bytes_before or bytes
    return time <= next_time and bytes_before - bytes < over
  end)
  if left == before then break end
end
return {left, left >= budget and 1 or 0, claims}
