-- Flips the kill switch of a tenant. The version tells replicas whose knowledge is the newest.
--
-- ARGV  tenant, 1 to suspend

local key, tenant = BASE .. 'suspended', arg()
redis.call('HINCRBY', key, '#', 1)
if arg() == '1' then
    redis.call('HSET', key, tenant, whole(now_ms()))
else
    redis.call('HDEL', key, tenant)
end
return redis.call('HGETALL', key)
