-- Notes a heartbeat: from the first one on, the next has to come within the call's idle time.
--
-- ARGV  tenant, call id

local now = now_ms()
local tenant, id = arg(), arg()
local key = call_key(tenant, id)
local deadline, idle, ending, ended = unpack(redis.call('HMGET', key, 'deadline', 'idle', 'ending', 'ended_at'))
if deadline and not ending and not ended then
    redis.call('HSET', key, 'heard_at', whole(now))
    if idle then
        redis.call('ZADD', DUE, whole(math.min(deadline, now + idle)), member(tenant, id))
    end
end
