-- Marks a call as ended; the first end stays. Time is Redis's own.
--
-- KEYS[1]  the call, a JSON object
-- ARGV[1]  who ended it
-- Gives    {the call as it stands afterwards, 1 if this step ended it}, or nil

local written = redis.call('GET', KEYS[1])
if not written then
    return nil
end
local call = cjson.decode(written)
if call.ended_at ~= cjson.null and call.ended_at ~= nil then
    return {written, 0}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local ours = now < call.deadline
-- The provider ends a call at its deadline, whether anybody hears of it or not.
call.ended_at = ours and now or call.deadline
call.ended_by = ours and ARGV[1] or 'provider'
local ended = cjson.encode(call)
redis.call('SET', KEYS[1], ended, 'KEEPTTL')
return {ended, ours and 1 or 0}
