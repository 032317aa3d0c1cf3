-- Marks a call as ended; the first end stays.
--
-- KEYS[1]  the call, a JSON object
-- ARGV[1]  who ended it
-- Gives    the call as it stands afterwards, or nil

local written = redis.call('GET', KEYS[1])
if not written then
    return nil
end
local call = cjson.decode(written)
if call.ended_at ~= cjson.null and call.ended_at ~= nil then
    return written
end
local time = redis.call('TIME')
call.ended_at = tonumber(time[1]) + tonumber(time[2]) / 1000000
call.ended_by = ARGV[1]
local ended = cjson.encode(call)
redis.call('SET', KEYS[1], ended, 'KEEPTTL')
return ended
