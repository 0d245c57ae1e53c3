-- Takes photos in; a photo that is known stays as it is.
-- KEYS: photos, messages, counts, hosts, the group's sorted set, per distinct host of the batch its sorted set, and last
--       the stage's due photos.
-- ARGV: group, since when they are due, then per photo: id, member, packed, message, number of its host, host.
-- Answers per photo what is kept of it, or false for a new one.
local photos, messages, counts, hosts, group = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]
local due = KEYS[#KEYS]
local answers = {}
for i = 3, #ARGV, 6 do
    local id, member, packed, message, at, host = unpack(ARGV, i, i + 5)
    local known = redis.call('HGET', photos, id)
    answers[#answers + 1] = known
    if not known then
        redis.call('HSET', photos, id, packed)
        redis.call('HSET', messages, id, message)
        redis.call('ZADD', KEYS[5], 0, member)
        redis.call('ZADD', KEYS[5 + at], 0, member)
        redis.call('ZADD', due, ARGV[2], id)
        redis.call('HINCRBY', counts, group, 1)
        redis.call('HINCRBY', hosts, group .. '/' .. host, 1)
    end
end
return answers
