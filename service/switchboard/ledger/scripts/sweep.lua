-- Claims what is due, and keeps the kill switch. Its work is bounded by what is due, not by what is open.
--
-- ARGV  most calls to claim, milliseconds of the claim, open calls of each suspended tenant to make due,
--       a name for the data if they have none
-- Gives {time, name of the data, {tenant, when its kill switch was flipped, …}, {call, …}}

local now = now_ms()
local most, claim, hasten, name = number_arg(), number_arg(), number_arg(), arg()
redis.call('SET', BASE .. 'generation', name, 'NX')

local flips = redis.call('HGETALL', BASE .. 'suspended')
for i = 1, #flips, 2 do
    local tenant = flips[i]
    if tonumber(flips[i + 1]) > 0 then
        -- By deadline; 0 marks those that have been told already.
        for _, id in ipairs(redis.call('ZRANGEBYSCORE', open_key(tenant), '(0', '+inf', 'LIMIT', 0, hasten)) do
            local key = call_key(tenant, id)
            redis.call('ZADD', open_key(tenant), 0, id)
            if not is_reservation(id) and is_open(key) and redis.call('HSETNX', key, 'ending', 'suspended') == 1 then
                redis.call('ZADD', DUE, whole(now), member(tenant, id))
            end
        end
    end
end

local claimed = {}
for _, one in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', whole(now), 'LIMIT', 0, most)) do
    local tenant, id = string.match(one, '^([^/]*)/(.*)$')
    local key = call_key(tenant, id)
    if is_reservation(id) or redis.call('EXISTS', key) == 0 then
        lapse(tenant, id)
    else
        local deadline, ending, ended = unpack(redis.call('HMGET', key, 'deadline', 'ending', 'ended_at'))
        if not ended then
            if not ending then
                redis.call('HSET', key, 'ending', now >= tonumber(deadline) and 'deadline' or 'idle')
            end
            redis.call('HINCRBY', key, 'attempts', 1)
        end
        redis.call('ZADD', DUE, whole(now + claim), one)
        table.insert(claimed, shown(tenant, id))
    end
end
return {whole(now), redis.call('GET', BASE .. 'generation'), flips, claimed}
