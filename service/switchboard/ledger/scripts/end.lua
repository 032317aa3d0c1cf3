-- Marks a call as ended, now or when it is told to have; the first end stays. Its slot is free, and what it did not
-- use of its minutes is given back.
--
-- ARGV  who ended it, milliseconds that an ended call is kept, milliseconds until its end has to be on record,
--       when it ended or 0, the call as `write` takes it
-- Gives {the call as it stands afterwards, 1 if this step ended it}

local now = now_ms()
local by, kept, record = arg(), number_arg(), number_arg()
local at = number_arg()
local tenant, id, key = write()
local started, ended = unpack(redis.call('HMGET', key, 'started_at', 'ended_at'))
if ended then
    return {shown(tenant, id), 0}
end
at = math.max(started, at > 0 and at or now) -- clocks differ, and are set back
refund(tenant, id, at - started)
leave(tenant, id)
redis.call('HSET', key, 'ended_at', whole(at), 'ended_by', by)
redis.call('PEXPIRE', key, kept)
redis.call('ZADD', DUE, whole(now + record), member(tenant, id))
return {shown(tenant, id), 1}
