-- ARGV: run id, round, server, "1" if this is all that it gives, "1" if it can ask the catalog, its epoch and generation ("" if it
-- knows of no earlier life), number of peers, peers; then for each node: node, head ("-": dropped), settled watermark, sequence up to
-- which it does not keep everything, batch ("": these are in the log; else a batch that was not answered, and the head is that of the last answer), number of records; for each
-- of these: sequence (or number in the batch), time, event, payload, how it is stored.
-- Returns "ok", or "late" if the round takes nothing any more.
local run, round, server = ARGV[1], ARGV[2], ARGV[3]
local heal = call('HMGET', base .. 'heal', 'id', 'run', 'closed', 'deadline')
if heal[1] ~= round or heal[2] ~= run or heal[3] then return 'late' end
local later = milliseconds() + 2000 -- a server that gives is alive
if num(heal[4]) < later then call('HSET', base .. 'heal', 'deadline', text(later)) end
if ARGV[5] == '1' then call('HSET', base .. 'heal', 'bound', '1') end
call('SADD', base .. 'heal:e', server)
if ARGV[6] ~= '' then
  call('HSET', base .. 'heal', 'knows', '1')
  call('SADD', base .. 'heal:p', ARGV[6])
  call('SADD', base .. 'heal:g', ARGV[7])
end
local at = 9 + num(ARGV[8])
for i = 9, at - 1 do call('SADD', base .. 'heal:e', ARGV[i]) end
while at <= #ARGV do
  local node, head, settled, unkept = ARGV[at], ARGV[at + 1], num(ARGV[at + 2]), num(ARGV[at + 3])
  local batch, records = ARGV[at + 4], num(ARGV[at + 5])
  at = at + 6
  local known = call('HGET', base .. 'heal:h', node)
  if batch ~= '' then
    local drafts = {}
    for i = 1, records do
      drafts[i] = cmsgpack.pack({ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]})
      at = at + 5
    end
    call('SADD', base .. 'heal:n', node)
    call('HSET', base .. 'heal:q:' .. node, batch, cmsgpack.pack({num(head), drafts}))
    records = 0
  elseif not known or (known ~= '-' and (head == '-' or num(head) > num(known))) then call('HSET', base .. 'heal:h', node, head) end
  if unkept > num(call('HGET', base .. 'heal:u', node)) then call('HSET', base .. 'heal:u', node, text(unkept)) end
  if settled > num(call('HGET', base .. 'heal:s', node)) then call('HSET', base .. 'heal:s', node, text(settled)) end
  for _ = 1, records do
    call('HSET', base .. 'heal:r:' .. node, ARGV[at], cmsgpack.pack({ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]}))
    at = at + 5
  end
end
if ARGV[4] == '1' then call('SADD', base .. 'heal:d', server) end
return 'ok'
