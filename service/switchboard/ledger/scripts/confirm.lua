-- The end of a call is on record: nothing is left to be done.
--
-- ARGV  tenant, call id

local tenant, id = arg(), arg()
if not is_open(call_key(tenant, id)) then
    redis.call('ZREM', DUE, member(tenant, id))
end
