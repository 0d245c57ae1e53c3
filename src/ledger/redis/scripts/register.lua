-- Adds photos. A known photo is not changed.
-- KEYS: photos, messages, counts, hosts, epoch, the stage's due photos, the group's sorted set, then one sorted set of
--       the group for each distinct host of the batch.
-- ARGV: epoch for a new ledger, group, second at which the photos are due, then for each photo: id, member, packed
--       photo, message, number of its host, host.
-- Answers for each photo what is stored of it, or false for a new photo.
local photos, messages, counts, hosts, epoch, due, group_members = unpack(KEYS, 1, 7)
local group, due_at = ARGV[2], ARGV[3]
redis.call('SET', epoch, ARGV[1], 'NX')
local answers = {}
for i = 4, #ARGV, 6 do
    local id, member, packed, message, host_number, host = unpack(ARGV, i, i + 5)
    local stored = redis.call('HGET', photos, id)
    answers[#answers + 1] = stored
    if not stored then
        redis.call('HSET', photos, id, packed)
        redis.call('HSET', messages, id, message)
        redis.call('ZADD', group_members, 0, member)
        redis.call('ZADD', KEYS[7 + host_number], 0, member)
        redis.call('ZADD', due, due_at, id)
        redis.call('HINCRBY', counts, group, 1)
        redis.call('HINCRBY', hosts, group .. '/' .. host, 1)
    end
end
return answers
