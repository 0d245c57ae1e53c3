-- Gives leave to work on a photo that stands where the message says, and notes the worker.
-- KEYS: photos, messages, counts, hosts, the group's sorted set, the host's, the stage's due photos.
-- ARGV: id, member, place, worker, redelivered (0 or 1), packed and message to take in when the photo is not known,
--       group, group/host, since when it is due.
-- Answers the number of crashes; for a photo that stands elsewhere what is kept of it, and its message.
local photos, messages, counts, hosts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, member, place, worker, redelivered = unpack(ARGV, 1, 5)
local kept = redis.call('HGET', photos, id)
if not kept then
    kept = ARGV[6]
    redis.call('HSET', messages, id, ARGV[7])
    redis.call('ZADD', KEYS[5], 0, member)
    redis.call('ZADD', KEYS[6], 0, member)
    redis.call('ZADD', KEYS[7], ARGV[10], id)
    redis.call('HINCRBY', counts, ARGV[8], 1)
    redis.call('HINCRBY', hosts, ARGV[9], 1)
elseif kept:sub(1, #place) ~= place then
    return { kept, redis.call('HGET', messages, id) }
end
local crashes, length = kept:byte(#place + 1, #place + 2)
local noted = kept:sub(#place + 3, #place + 2 + length)
-- The worker's own note is there when it asks again because an answer was lost.
if redelivered == '1' and length > 0 and noted ~= worker then
    crashes = math.min(crashes + 1, 255)
end
local note = string.char(crashes, #worker) .. worker
redis.call('HSET', photos, id, place .. note .. kept:sub(#place + 3 + length))
return crashes
