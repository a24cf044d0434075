-- ARGV: life, seconds that a clean node is remembered, then node, fence and watermark of each lease. Returns for each what became of it
-- (clean, dirty, lost, wrong), and where the node is settled and where its head is.
if not alive(ARGV[1]) then return HEAL end
local answer = {}
local function settle(node, fence, watermark)
  local state_key = base .. 'n:' .. node
  local state = call('HMGET', state_key, 's', 'f', 'b')
  if state[2] ~= fence then return 'lost', 0, 0 end
  local settled, head = num(state[1]), num(call('GET', base .. 'h:' .. node))
  if watermark < settled or watermark > head then return 'wrong', settled, head end
  call('HSET', state_key, 's', text(watermark))
  call('HDEL', state_key, 'f')
  call('DECRBY', base .. 'owed', text(watermark - settled))
  call('ZADD', base .. 'sizes', state[3], node)
  call('PUBLISH', base .. 'c:' .. node, 's' .. text(watermark))
  if watermark == head then
    clean(node)
    call('EXPIRE', state_key, ARGV[2])
    call('EXPIRE', base .. 'h:' .. node, ARGV[2])
    return 'clean', watermark, head
  end
  call('ZADD', base .. 'since', time_at(node, watermark + 1), node)
  local wanted = call('ZSCORE', base .. 'wanted', node)
  if wanted and num(wanted) <= watermark then call('ZREM', base .. 'wanted', node) end
  offer(node)
  return 'dirty', watermark, head
end
for i = 3, #ARGV, 3 do
  local outcome, settled, head = settle(ARGV[i], ARGV[i + 1], num(ARGV[i + 2]))
  answer[#answer + 1] = outcome
  answer[#answer + 1] = text(settled)
  answer[#answer + 1] = text(head)
end
return answer
