-- Flips the kill switch of a tenant. When it was flipped tells replicas whose knowledge is the newest.
--
-- ARGV  tenant, 1 to suspend
-- Gives {tenant, when it was flipped, …}

local key, tenant, on = BASE .. 'suspended', arg(), arg() == '1'
local last = math.abs(redis.call('HGET', key, tenant) or 0)
local at = math.max(now_ms(), last + 1) -- a clock may be behind that of the primary before
redis.call('HSET', key, tenant, whole(on and at or -at))
return redis.call('HGETALL', key)
