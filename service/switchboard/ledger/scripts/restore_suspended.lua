-- Writes the kill switch back after Redis lost it, unless what stands there is newer.
--
-- ARGV  version, tenant, since when, …
-- Gives what stands there afterwards

local key = BASE .. 'suspended'
if (tonumber(redis.call('HGET', key, '#')) or 0) < tonumber(ARGV[1]) then
    redis.call('DEL', key)
    redis.call('HSET', key, '#', unpack(ARGV))
end
return redis.call('HGETALL', key)
