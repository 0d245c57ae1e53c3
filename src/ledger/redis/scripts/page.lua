-- Reads several sorted sets at the same moment, each from the same member on.
-- KEYS: sorted sets. ARGV: lower bound, then for each set the most members to read.
local answers = {}
for i, key in ipairs(KEYS) do
    answers[i] = redis.call('ZRANGEBYLEX', key, ARGV[1], '+', 'LIMIT', 0, ARGV[i + 1])
end
return answers
