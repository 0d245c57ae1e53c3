-- Reads several sorted sets at one moment, each from the same member on.
-- KEYS: sorted sets. ARGV: lower bound, then how many members of each at most.
local answers = {}
for i, key in ipairs(KEYS) do
    answers[i] = redis.call('ZRANGEBYLEX', key, ARGV[1], '+', 'LIMIT', 0, ARGV[i + 1])
end
return answers
