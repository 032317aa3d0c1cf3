-- Writes a call back that Redis has lost, as whoever opened it remembers it. What is known stays as it is. Heartbeats
-- may have gone unheard meanwhile: whether they have stopped is seen anew.
--
-- ARGV  the call as `write` takes it

local tenant, id, key = write()
if redis.call('HEXISTS', key, 'heard_at') == 1 then
    beat(tenant, id)
end
