-- Writes kill switches back that Redis has lost; where one was flipped later, that stays.
--
-- ARGV  tenant, when it was flipped, …

local key = BASE .. 'suspended'
for i = 1, #ARGV, 2 do
    if math.abs(redis.call('HGET', key, ARGV[i]) or 0) < math.abs(ARGV[i + 1]) then
        redis.call('HSET', key, ARGV[i], ARGV[i + 1])
    end
end
