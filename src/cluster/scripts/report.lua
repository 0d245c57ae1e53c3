-- Stores a worker's report, or removes the worker if the report is empty. Removes workers without a recent report.
-- KEYS: time of each last report, reports. ARGV: name, report, memory in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen, reports, name, report, memory = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
if report == '' then
    redis.call('ZREM', seen, name)
    redis.call('HDEL', reports, name)
else
    redis.call('ZADD', seen, now, name)
    redis.call('HSET', reports, name, report)
end
for _, expired in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', now - memory)) do
    redis.call('ZREM', seen, expired)
    redis.call('HDEL', reports, expired)
end
redis.call('PEXPIRE', seen, memory)
redis.call('PEXPIRE', reports, memory)
return 1
