-- What all scripts share. KEYS[1] is what every key of the deployment begins with, "{prefix}:"; the braces put them into one slot.
--   epoch            which life of the log this is
--   catalog          the catalog whose log this is
--   h:NODE           head of a node: a number, or "-" once it was dropped
--   n:NODE           hash: s settled, a first retained, b bytes retained, f fence of the lease in force
--   r:NODE, p:NODE   streams under the ids SEQUENCE-0: records (t time, e event, n bytes of payload, p a small payload or
--                    c the token of a very large one), payloads of middle size
--   since            nodes that owe something, by the time of the oldest record they owe
--   free, leased     the same nodes: those to be claimed by turn, the others by when (ms) they can be claimed again
--   wanted           nodes that a reader waits for, by the highest sequence waited for
--   retained, sizes  nodes with records, by the time of the oldest; and by bytes, as of the last settling
--   owed, bytes      sums over all nodes: records not settled, bytes retained
--   turn, fence      counters
-- Channels: c:NODE "h<head>", "s<settled>" or "g" (gone); dirty "d" (something to claim) or "w" (somebody waits).
local base = KEYS[1]
local OVERHEAD = 400 -- what a record costs beside its payload, as everywhere
local call = redis.call

local function id(sequence) return string.format('%.0f-0', sequence) end
local function text(number) return string.format('%.0f', number) end
local function num(value) return tonumber(value or 0) or 0 end

local function milliseconds()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function epoch_or(candidate)
  local epoch = call('GET', base .. 'epoch')
  if not epoch then
    epoch = candidate
    call('SET', base .. 'epoch', epoch)
  end
  return epoch
end

local function offer(node) -- it can be claimed, after all that can be claimed now
  call('ZREM', base .. 'leased', node)
  call('ZADD', base .. 'free', call('INCR', base .. 'turn'), node)
  call('PUBLISH', base .. 'dirty', 'd')
end

local function clean(node) -- it owes nothing
  call('ZREM', base .. 'since', node)
  call('ZREM', base .. 'free', node)
  call('ZREM', base .. 'leased', node)
  call('ZREM', base .. 'wanted', node)
end

local function forget_records(node, bytes) -- none is retained
  call('DEL', base .. 'r:' .. node, base .. 'p:' .. node)
  call('ZREM', base .. 'retained', node)
  call('ZREM', base .. 'sizes', node)
  if bytes ~= 0 then call('DECRBY', base .. 'bytes', text(bytes)) end
end

local function time_at(node, sequence) -- when a retained record was written, as text
  local entry = call('XRANGE', base .. 'r:' .. node, id(sequence), id(sequence))[1]
  if not entry then return nil end
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 't' then return entry[2][i + 1] end
  end
end
