-- Enters the call that came of a reservation, which it takes the place of.
--
-- ARGV  tenant, slot id, call id, user key, offer digest, call length and claim (milliseconds),
--       issuer, preset, provider, key name, grant id or '', idle milliseconds or ''
-- Gives the call. It is `ending` if it must not stand: the tenant was suspended meanwhile, or the reservation lapsed,
--       so that its slot may be somebody else's.

local now = now_ms()
local tenant, slot, id, user, digest = arg(), arg(), arg(), arg(), arg()
local length, claim = number_arg(), number_arg()
local held, key = call_key(tenant, slot), call_key(tenant, id)

local ending = ''
if redis.call('HEXISTS', BASE .. 'suspended', tenant) == 1 then
    ending = 'suspended'
elseif redis.call('EXISTS', held) == 0 then
    ending = 'replaced'
end
local minutes = redis.call('HGET', held, 'minutes')
redis.call('HDEL', held, 'minutes') -- they are the call's from now on
drop(tenant, slot)

local deadline = whole(now + length)
redis.call(
    'HSET', key, 'tenant', tenant, 'user_key', user, 'digest', digest, 'started_at', whole(now), 'deadline', deadline,
    'issuer', arg(), 'preset', arg(), 'provider', arg(), 'key_name', arg()
)
local grant, idle = arg(), arg()
for name, value in pairs({grant_id = grant, idle = idle, ending = ending, minutes = minutes or ''}) do
    if value ~= '' then
        redis.call('HSET', key, name, value)
    end
end
redis.call('PEXPIRE', key, SETS_KEPT)
redis.call('SET', offer_key(tenant, user, digest), id, 'PX', whole(length + claim))
redis.call('HSET', BASE .. 'where', id, tenant)
enter(tenant, user, id, whole(now), deadline, ending == '' and deadline or whole(now + claim))
return shown(tenant, id)
