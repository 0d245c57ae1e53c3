-- Removes the worker that is stored for a photo at this position.
-- KEYS: photos. ARGV: id, position, worker.
local id, position, worker = unpack(ARGV)
local stored = redis.call('HGET', KEYS[1], id)
if not stored or stored:sub(1, #position) ~= position then
    return 0
end
local crashes, length = stored:byte(#position + 1, #position + 2)
if length == 0 or stored:sub(#position + 3, #position + 2 + length) ~= worker then
    return 0
end
redis.call('HSET', KEYS[1], id, position .. string.char(crashes, 0) .. stored:sub(#position + 3 + length))
return 1
