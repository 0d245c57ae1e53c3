-- Ends a turn at a host, and notes how it was received.
-- KEYS: host, turns. ARGV: ticket; welcome, wait or neither; in ms: the wait that the host named (-1: none), the first
--       unnamed wait, the longest, how long the growing of unnamed waits is remembered.
-- Answers the ms that the host wants quiet.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local host, turns, ticket, reception = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local wait, first, longest, memory = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

redis.call('ZREM', turns, ticket)
local quiet, waits = unpack(redis.call('HMGET', host, 'quiet_until', 'waits'))
quiet, waits = tonumber(quiet or 0), tonumber(waits or 0)
if reception == 'welcome' and waits > 0 then
    redis.call('HDEL', host, 'waits')
elseif reception == 'wait' then
    -- Turns that were under way together are told so together: that is one wait.
    if quiet <= now then
        waits = waits + 1
    end
    if wait < 0 then
        wait = first * 2 ^ math.min(math.max(waits - 1, 0), 12)
    end
    quiet = math.max(quiet, now + math.min(wait, longest))
    redis.call('HSET', host, 'quiet_until', quiet, 'waits', waits)
    redis.call('PEXPIRE', host, quiet - now + memory)
end
return math.max(quiet - now, 0)
