-- Gives a process a turn at a host, or says why not.
-- KEYS: host, turns, processes. ARGV: process, ticket, turns at a time; in ms: from start to start, the longest turn, how
--       long a process that asks is remembered.
-- Answers go, busy or quiet; ms until the start or the end of the quiet; how many processes share the host.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local host, turns, processes = KEYS[1], KEYS[2], KEYS[3]
local process, ticket = ARGV[1], ARGV[2]
local at_a_time, spacing, longest, memory = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function keep(key, ms)
    if redis.call('PTTL', key) < ms then
        redis.call('PEXPIRE', key, ms)
    end
end

redis.call('ZADD', processes, now, process)
redis.call('ZREMRANGEBYSCORE', processes, '-inf', now - memory)
keep(processes, memory)
local sharers = redis.call('ZCARD', processes)

local quiet, start = unpack(redis.call('HMGET', host, 'quiet_until', 'next_start'))
quiet = tonumber(quiet or 0)
if quiet > now then
    return { 'quiet', quiet - now, sharers }
end
-- Whose turn should be over long ago has died.
redis.call('ZREMRANGEBYSCORE', turns, '-inf', now)
if redis.call('ZCARD', turns) >= at_a_time then
    return { 'busy', 0, sharers }
end
start = math.max(tonumber(start or 0), now)
redis.call('ZADD', turns, start + longest, ticket)
keep(turns, start + longest - now)
redis.call('HSET', host, 'next_start', start + spacing)
keep(host, start + spacing - now + 1000)
return { 'go', start - now, sharers }
