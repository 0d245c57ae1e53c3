-- Moves a photo from one position to another if it is at the first, counts it there, and adds it to the feed of endings
-- when it ends or is reopened.
-- KEYS: photos, messages, counts, hosts, epoch, endings, sorted sets of the new group and of its host, due photos of
--       the old stage and of the new one. The keys of the groups that it leaves depend on what is stored; they lie in
--       the same slot.
-- ARGV: id, member, old position, new position, status fields, event, longest history, message, prefix of the sorted
--       sets' keys, old STAGE/KIND, new group, new group/host, second at which it is due (empty: it has ended), code
--       for the feed (empty: no entry), epoch for a new ledger.
-- Answers 1; for a photo at another position what is stored of it, and its message.
local photos, messages, counts, hosts, epoch, endings = unpack(KEYS, 1, 6)
local new_group_members, new_host_members, old_due, new_due = unpack(KEYS, 7, 10)
local id, member, from, to, fields, event, longest, message = unpack(ARGV, 1, 8)
local groups_prefix, old_stem, new_group, new_group_and_host, due_at, feed_code = unpack(ARGV, 9, 14)

local function decrement(hash, name)
    if redis.call('HINCRBY', hash, name, -1) <= 0 then
        redis.call('HDEL', hash, name)
    end
end

local stored = redis.call('HGET', photos, id)
local history = ''
if stored then
    if stored:sub(1, #from) ~= from then
        return { stored, redis.call('HGET', messages, id) }
    end
    local at = #from + 3 + stored:byte(#from + 2)
    local high, low, length = stored:byte(at, at + 2)
    local host = stored:sub(at + 3, at + 2 + length)
    local code = stored:sub(at + 4 + length, at + 3 + length + stored:byte(at + 3 + length))
    history = stored:sub(at + 2 + high * 256 + low)
    local group = old_stem .. (code ~= '' and '/' .. code or '')
    redis.call('ZREM', groups_prefix .. group, member)
    redis.call('ZREM', groups_prefix .. group .. '@' .. host, member)
    decrement(counts, group)
    decrement(hosts, group .. '/' .. host)
end
redis.call('ZREM', old_due, id)
if due_at ~= '' then
    redis.call('ZADD', new_due, due_at, id)
end
-- A photo that the ledger lost while it was processed is added where it arrives.
history = history .. event
while #history > tonumber(longest) and #history > #event do
    history = history:sub(2 + history:byte(1))
end
redis.call('HSET', photos, id, to .. '\0\0' .. fields .. history)
redis.call('HSET', messages, id, message)
redis.call('ZADD', new_group_members, 0, member)
redis.call('ZADD', new_host_members, 0, member)
redis.call('HINCRBY', counts, new_group, 1)
redis.call('HINCRBY', hosts, new_group_and_host, 1)
if feed_code ~= '' then
    redis.call('SET', epoch, ARGV[15], 'NX')
    redis.call('XADD', endings, '0-*', 'id', id, 'change', feed_code)
end
return 1
