-- Releases a lease, and stores how the host responded.
-- KEYS: host, leases.
-- ARGV: lease; success, wait or neither; in ms: the quiet period that the host asked for (-1: without a duration), the
--       first quiet period without a duration, the longest, the time until their number is forgotten.
-- Returns the ms that are left of the quiet period.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local host, leases, lease, feedback = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local wait, first, longest, memory = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

redis.call('ZREM', leases, lease)
local quiet, waits = unpack(redis.call('HMGET', host, 'quiet_until', 'waits'))
quiet, waits = tonumber(quiet or 0), tonumber(waits or 0)
if feedback == 'success' and waits > 0 then
    redis.call('HDEL', host, 'waits')
elseif feedback == 'wait' then
    -- Requests in flight at the same time may all ask for the same quiet period: it counts once.
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
