-- Grants a process a lease for one request to a host, or refuses it.
-- KEYS: host, leases, processes.
-- ARGV: process, lease, most leases at a time; in ms: time between two starts, time until a lease expires, time that a
--       process shares the host after its last call.
-- Returns granted, busy or quiet; ms until the start or the end of the quiet period; number of processes that share the
-- host.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local host, leases, processes = KEYS[1], KEYS[2], KEYS[3]
local process, lease = ARGV[1], ARGV[2]
local most_leases, spacing = tonumber(ARGV[3]), tonumber(ARGV[4])
local lease_time, sharing = tonumber(ARGV[5]), tonumber(ARGV[6])

local function extend_expiry(key, ms)
    if redis.call('PTTL', key) < ms then
        redis.call('PEXPIRE', key, ms)
    end
end

redis.call('ZADD', processes, now, process)
redis.call('ZREMRANGEBYSCORE', processes, '-inf', now - sharing)
extend_expiry(processes, sharing)
local sharing_processes = redis.call('ZCARD', processes)

local quiet, start = unpack(redis.call('HMGET', host, 'quiet_until', 'next_start'))
quiet = tonumber(quiet or 0)
if quiet > now then
    return { 'quiet', quiet - now, sharing_processes }
end
-- An expired lease belongs to a process that crashed.
redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
if redis.call('ZCARD', leases) >= most_leases then
    return { 'busy', 0, sharing_processes }
end
start = math.max(tonumber(start or 0), now)
redis.call('ZADD', leases, start + lease_time, lease)
extend_expiry(leases, start + lease_time - now)
redis.call('HSET', host, 'next_start', start + spacing)
extend_expiry(host, start + spacing - now + 1000)
return { 'granted', start - now, sharing_processes }
