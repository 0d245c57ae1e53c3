-- Grants the permission to process a photo at its position, and stores the worker.
-- KEYS: photos, messages, counts, hosts, epoch, the stage's due photos, the group's sorted set, the host's.
-- ARGV: id, member, position, worker, redelivered (0 or 1); for a photo that is not known: packed photo, message,
--       group, group/host, second at which it is due, epoch for a new ledger.
-- Answers the number of crashes; for a photo at another position what is stored of it, and its message.
local photos, messages, counts, hosts, epoch, due, group_members, host_members = unpack(KEYS)
local id, member, position, worker, redelivered = unpack(ARGV, 1, 5)
local stored = redis.call('HGET', photos, id)
if not stored then
    local packed, message, group, group_and_host, due_at = unpack(ARGV, 6, 10)
    stored = packed
    redis.call('SET', epoch, ARGV[11], 'NX')
    redis.call('HSET', messages, id, message)
    redis.call('ZADD', group_members, 0, member)
    redis.call('ZADD', host_members, 0, member)
    redis.call('ZADD', due, due_at, id)
    redis.call('HINCRBY', counts, group, 1)
    redis.call('HINCRBY', hosts, group_and_host, 1)
elseif stored:sub(1, #position) ~= position then
    return { stored, redis.call('HGET', messages, id) }
end
local crashes, length = stored:byte(#position + 1, #position + 2)
local last_worker = stored:sub(#position + 3, #position + 2 + length)
-- The worker's own name is stored when it asks again because an answer was lost.
if redelivered == '1' and length > 0 and last_worker ~= worker then
    crashes = math.min(crashes + 1, 255)
end
local processor = string.char(crashes, #worker) .. worker
redis.call('HSET', photos, id, position .. processor .. stored:sub(#position + 3 + length))
return crashes
