-- Deletes the message of a photo that has ended at this position.
-- KEYS: photos, messages. ARGV: id, position.
local id, position = unpack(ARGV)
local stored = redis.call('HGET', KEYS[1], id)
if stored and stored:sub(1, #position) == position then
    return redis.call('HDEL', KEYS[2], id)
end
return 0
