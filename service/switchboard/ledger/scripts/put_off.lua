-- Has a call ended by a sweeper, after a while. A call that is not known is entered.
--
-- ARGV  why it is to be ended, milliseconds until then, the call as `write` takes it

local now = now_ms()
local by, wait = arg(), number_arg()
local tenant, id, key = write()
if is_open(key) then
    redis.call('HSETNX', key, 'ending', by)
    redis.call('ZADD', DUE, whole(now + wait), member(tenant, id))
end
