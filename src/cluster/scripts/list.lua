-- Lists the workers with a recent report.
-- KEYS: time of each last report, reports. ARGV: memory in ms.
-- Returns pairs of the report's age in ms and the report.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[1], '+inf', 'WITHSCORES')
local rows = {}
for i = 1, #found, 2 do
    local report = redis.call('HGET', KEYS[2], found[i])
    if report then
        rows[#rows + 1] = { math.max(now - found[i + 1], 0), report }
    end
end
return rows
