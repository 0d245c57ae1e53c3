-- Reads the feed of endings after a sequence; from its start if the reader's cursor does not belong to it.
-- KEYS: epoch, endings. ARGV: epoch and sequence of the reader's cursor (no cursor: empty, 0), most entries.
-- Answers the epoch, whether the feed is read from its start against the cursor (0 or 1), the entries.
local epoch = redis.call('GET', KEYS[1]) or ''
local reader_epoch, sequence, limit = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local function read(after)
    return redis.call('XRANGE', KEYS[2], '(0-' .. after, '+', 'COUNT', limit)
end
if reader_epoch ~= epoch then
    return { epoch, reader_epoch ~= '' and 1 or 0, read('0') }
end
local entries = read(ARGV[2])
if #entries == 0 and sequence > 0 then
    -- A server that lost its last writes has an end before the cursor.
    local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
    if not last or tonumber(last[1]:match('-(%d+)$')) < sequence then
        return { epoch, 1, read('0') }
    end
end
return { epoch, 0, entries }
