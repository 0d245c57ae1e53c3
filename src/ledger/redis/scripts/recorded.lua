-- Lets go of the message of a photo that has ended at this place.
-- KEYS: photos, messages. ARGV: id, place.
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept and kept:sub(1, #ARGV[2]) == ARGV[2] then
    return redis.call('HDEL', KEYS[2], ARGV[1])
end
return 0
