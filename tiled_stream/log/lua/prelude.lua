-- What all scripts share. KEYS[1] is what every key of the deployment begins with, "{prefix}:"; the braces put them into one slot.
--   epoch            which life of the log this is
--   catalog          the catalog whose log this is
--   h:NODE           head of a node: a number, or "-" once it was dropped
--   n:NODE           hash: s settled, a first retained, b bytes retained, f fence of the lease in force, w worker that leased it
--                    last and l its fence, g generation of the log that changed it last and o the head at the begin of that
--   r:NODE, p:NODE   streams under the ids SEQUENCE-0: records (t time, e event, n bytes of payload, p a small payload or
--                    c the token of a very large one), payloads of middle size
--   since            nodes that owe something, by the time of the oldest record they owe
--   free, leased     the same nodes: those to be claimed by turn, the others by when (ms) they can be claimed again
--   wanted           nodes that a reader waits for, by the highest sequence waited for
--   retained, sizes  nodes with records, by the time of the oldest; and by bytes, as of the last settling
--   owed, bytes      sums over all nodes: records not settled, bytes retained
--   turn, fence      counters; fence begins at the clock, in microseconds
--   above            fences must be higher than this
--   revision         of the catalog, as remembered
--   life             "<run id of the Redis server>:<generation>": the log is whole on that server. If the key is missing or names
--                    another server, the log has to be healed before anything else is done (heal_*.lua)
--   fresh            there if nothing has been done in this life yet; previous: the generation before this one, if it is known
--   servers          ids of servers, by the time (ms) of their last heartbeat
--   heal             hash of the round under way: id (which becomes the generation), run, before, deadline, window (ms), knows,
--                    bound, closed, whole, healed, lost; heal:e servers expected, heal:d done; heal:f the server that finishes it;
--                    heal:p epochs and heal:g generations of those that take part; heal:h heads ("-": dropped) and
--                    heal:s settled watermarks, heal:u sequences up to which records are not kept, by node; heal:r:NODE records by
--                    sequence; heal:n nodes with heal:q:NODE, records of batches that were sent and not answered, by "WRITER:BATCH"
--   a:WRITER:BATCH   hash: the sequence before the records of that batch, by node; they were restored, and the batch was not answered
-- Channels: c:NODE "h<head>", "s<settled>" or "g" (gone); dirty "d" (something to claim), "w" (somebody waits),
-- or "x" (the log is being healed).
local base = KEYS[1]
local OVERHEAD = 400 -- what a record costs beside its payload, as everywhere
local call = redis.call

local function id(sequence) return string.format('%.0f-0', sequence) end
local function text(number) return string.format('%.0f', number) end
local function num(value) return tonumber(value or 0) or 0 end

-- The first argument of every script that changes something: the life that the caller takes part in.
local HEAL = redis.error_reply('HEAL the log is not whole')
local function alive(life) return call('GET', base .. 'life') == life end

local function microseconds()
  local t = call('TIME')
  return t[1] * 1000000 + t[2]
end

local function milliseconds()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function next_fence()
  call('SET', base .. 'fence', text(microseconds()), 'NX')
  return text(call('INCR', base .. 'fence'))
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

-- Add a record to the streams of a node; how its payload is stored: 1 in the record, 0 beside it, c and the number of bytes that the
-- token stands for. Returns the bytes that it counts.
local function add_record(node, sequence, time, event, payload, how)
  if how == '1' then
    call('XADD', base .. 'r:' .. node, id(sequence), 't', time, 'e', event, 'n', #payload, 'p', payload)
  elseif how == '0' then
    call('XADD', base .. 'r:' .. node, id(sequence), 't', time, 'e', event, 'n', #payload)
    call('XADD', base .. 'p:' .. node, id(sequence), 'p', payload)
  else
    call('XADD', base .. 'r:' .. node, id(sequence), 't', time, 'e', event, 'n', how:sub(2), 'c', payload)
    return num(how:sub(2)) + OVERHEAD
  end
  return #payload + OVERHEAD
end
