-- Counts open calls.
--
-- ARGV  tenants
-- Gives a number for each

local counts = {}
for i, tenant in ipairs(ARGV) do
    counts[i] = redis.call('ZCARD', open_key(tenant))
end
return counts
