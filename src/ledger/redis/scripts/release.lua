-- Takes back the note that a worker left at this place.
-- KEYS: photos. ARGV: id, place, worker.
local id, place, worker = unpack(ARGV)
local kept = redis.call('HGET', KEYS[1], id)
if not kept or kept:sub(1, #place) ~= place then
    return 0
end
local crashes, length = kept:byte(#place + 1, #place + 2)
if length == 0 or kept:sub(#place + 3, #place + 2 + length) ~= worker then
    return 0
end
redis.call('HSET', KEYS[1], id, place .. string.char(crashes, 0) .. kept:sub(#place + 3 + length))
return 1
