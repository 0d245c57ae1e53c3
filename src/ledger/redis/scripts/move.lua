-- Moves a photo from one place to another if it stands at the first, and counts it there.
-- KEYS: photos, messages, counts, hosts, sorted sets of the new group and of its host, due photos of the old stage and
--       of the new one. The groups that it leaves depend on what is kept; they lie in the same slot.
-- ARGV: id, member, old place, new place, facts, event, longest history, message, what the keys of sorted sets begin
--       with, old STAGE/KIND, new group, new group/host, since when it is due (empty: it has ended).
-- Answers 1; for a photo that stands elsewhere what is kept of it, and its message.
local photos, messages, counts, hosts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, member, from, to, facts, event, longest, message = unpack(ARGV, 1, 8)

local function uncount(hash, name)
    if redis.call('HINCRBY', hash, name, -1) <= 0 then
        redis.call('HDEL', hash, name)
    end
end

local kept = redis.call('HGET', photos, id)
local history = ''
if kept then
    if kept:sub(1, #from) ~= from then
        return { kept, redis.call('HGET', messages, id) }
    end
    local at = #from + 3 + kept:byte(#from + 2)
    local high, low, length = kept:byte(at, at + 2)
    local host = kept:sub(at + 3, at + 2 + length)
    local code = kept:sub(at + 4 + length, at + 3 + length + kept:byte(at + 3 + length))
    history = kept:sub(at + 2 + high * 256 + low)
    local group = ARGV[10] .. (code ~= '' and '/' .. code or '')
    redis.call('ZREM', ARGV[9] .. group, member)
    redis.call('ZREM', ARGV[9] .. group .. '@' .. host, member)
    uncount(counts, group)
    uncount(hosts, group .. '/' .. host)
end
redis.call('ZREM', KEYS[7], id)
if ARGV[13] ~= '' then
    redis.call('ZADD', KEYS[8], ARGV[13], id)
end
-- A photo the ledger has lost while it was worked on is taken in where it arrives.
history = history .. event
while #history > tonumber(longest) and #history > #event do
    history = history:sub(2 + history:byte(1))
end
redis.call('HSET', photos, id, to .. '\0\0' .. facts .. history)
redis.call('HSET', messages, id, message)
redis.call('ZADD', KEYS[5], 0, member)
redis.call('ZADD', KEYS[6], 0, member)
redis.call('HINCRBY', counts, ARGV[11], 1)
redis.call('HINCRBY', hosts, ARGV[12], 1)
return 1
