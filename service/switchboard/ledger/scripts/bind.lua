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

if redis.call('EXISTS', key) == 1 then
    -- It was given up, or written back, by a step that has overtaken this one.
    drop(tenant, slot)
    return shown(tenant, id)
end

local lease_ends = tonumber(redis.call('HGET', held, 'deadline')) or 0
local ending = is_suspended(tenant) and 'suspended' or lease_ends <= now and 'replaced' or ''
if lease_ends > now then
    leave(tenant, slot)
    redis.call('RENAME', held, key) -- with what was charged of minutes
else
    lapse(tenant, slot)
end

local deadline = whole(now + length)
redis.call(
    'HSET', key, 'tenant', tenant, 'user_key', user, 'digest', digest, 'started_at', whole(now), 'deadline', deadline,
    'issuer', arg(), 'preset', arg(), 'provider', arg(), 'key_name', arg()
)
local grant, idle = arg(), arg()
for name, value in pairs({grant_id = grant, idle = idle, ending = ending}) do
    if value ~= '' then
        redis.call('HSET', key, name, value)
    end
end
redis.call('PEXPIRE', key, SETS_KEPT)
redis.call('HSET', BASE .. 'where', id, tenant)
if ending == '' then
    redis.call('SET', offer_key(tenant, user, digest), id, 'PX', whole(length + claim))
end
enter(tenant, user, id, whole(now), deadline, ending == '' and deadline or whole(now + claim))
return shown(tenant, id)
