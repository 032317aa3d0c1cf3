-- Decides on a request before the provider is asked: suspension, grant, quotas, slot and minutes, all or nothing.
--
-- ARGV  tenant, user key, 1 to enforce (0, shadow mode: let through what does not fit),
--       grant id or '', milliseconds that it is still valid,
--       number of quotas, then for each: scope, limit, seconds;
--       slot id or '', and if there is one: offer digest, lease, call length, shortest call length (milliseconds),
--       user cap, tenant cap (0: none), 1 to replace, number of quotas of minutes, then for each: scope, limit, seconds
-- Gives {state, windows, minutes, call length, extra}
--       state    'ok' or, in shadow mode, 'unfit' (quotas uncharged); else 'suspended', 'used', 'exceeded', 'full' or
--                'replace', and nothing is charged or held
--       windows  count, milliseconds to its end (-1: not open), … of each quota
--       minutes  milliseconds left, milliseconds to its end, … of each quota of minutes
--       extra    'full': {which cap, milliseconds}; 'replace': the call; in shadow mode: as 'full', or {}
--
-- A window opens with its first request and ends its length later, as in the fixed window of the library `limits`.

local LOOKED_AT = 64 -- ids of a user beyond the cap: left by a cap that was lowered, or by leases that are over

local now = now_ms()
local tenant, user, enforce = arg(), arg(), arg() == '1'
local grant, grant_ms = arg(), number_arg()
local grant_key = BASE .. tenant .. ':grant:' .. grant

if is_suspended(tenant) then
    return {'suspended', {}, {}, 0, {}}
end
if grant ~= '' and redis.call('EXISTS', grant_key) == 1 then
    return {'used', {}, {}, 0, {}}
end

local windows, fits = {}, true
local keys, counts, ttls, lengths = {}, {}, {}, {}
for i = 1, number_arg() do
    local scope, limit, seconds = arg(), number_arg(), arg()
    keys[i] = window_key(tenant, user, 'quota', scope, seconds)
    lengths[i] = seconds * 1000
    counts[i] = tonumber(redis.call('GET', keys[i])) or 0
    ttls[i] = redis.call('PTTL', keys[i])
    if ttls[i] == 0 then
        -- Its last millisecond: the key is still there, its window is over, and its count is not the next one's.
        counts[i] = 0
    end
    fits = fits and counts[i] < limit
    windows[2 * i - 1], windows[2 * i] = counts[i], ttls[i]
end
if not fits and enforce then
    return {'exceeded', windows, {}, 0, {}}
end

local slot = arg()
local digest, lease, length, shortest, user_cap, tenant_cap, replace
if slot ~= '' then
    digest, lease, length, shortest = arg(), number_arg(), number_arg(), number_arg()
    user_cap, tenant_cap, replace = number_arg(), number_arg(), arg() == '1'
end

-- When one of these ids leaves: a reservation at the end of its lease at the latest, a call at its deadline.
local function frees_in(ids)
    local first = math.huge
    for _, id in ipairs(ids) do
        first = math.min(first, tonumber(redis.call('HGET', call_key(tenant, id), 'deadline')) or now)
    end
    return math.max(0, first - now)
end

-- Whether an id of this user still has its slot. One whose lease is over, where no sweeper has been yet, is dropped;
-- so is one without data, which nothing else would take out.
local function is_held(id)
    local deadline = tonumber(redis.call('HGET', call_key(tenant, id), 'deadline'))
    if deadline and (deadline > now or not is_reservation(id)) then
        return true
    end
    lapse(tenant, id)
    redis.call('ZREM', user_key(tenant, user), id)
    return false
end

local full, victim = {}, nil
if slot ~= '' then
    local same = redis.call('GET', offer_key(tenant, user, digest))
    if same and is_held(same) then
        if is_reservation(same) then
            -- Whatever the mode: two calls of one offer are never meant.
            return {'full', windows, {}, 0, {'offer', frees_in({same})}}
        end
        victim = same
    end
    if not victim and user_cap > 0 and redis.call('ZCARD', user_key(tenant, user)) >= user_cap then
        local mine = {}
        for _, id in ipairs(redis.call('ZRANGE', user_key(tenant, user), 0, user_cap + LOOKED_AT - 1)) do
            if is_held(id) then
                table.insert(mine, id)
                if replace and enforce and not victim and not is_reservation(id) then
                    victim = id
                end
            end
        end
        if #mine < user_cap then
            victim = nil
        elseif not victim then
            full = {'user', frees_in(mine)}
        end
    end
    if not victim and #full == 0 and tenant_cap > 0 and redis.call('ZCARD', open_key(tenant)) >= tenant_cap then
        full = {'tenant', frees_in(redis.call('ZRANGE', open_key(tenant), 0, 0))}
    end
end
if victim then
    return {'replace', windows, {}, 0, shown(tenant, victim)}
end
if #full > 0 and enforce then
    return {'full', windows, {}, 0, full}
end

local minutes, charges = {}, {}
if slot ~= '' then
    local longest = length
    for i = 1, number_arg() do
        local scope, limit, seconds = arg(), number_arg(), arg()
        local key = window_key(tenant, user, 'minutes', scope, seconds)
        local ttl = redis.call('PTTL', key)
        local used = ttl == 0 and 0 or tonumber(redis.call('GET', key)) or 0
        local left = math.max(0, limit * 1000 - used)
        minutes[2 * i - 1], minutes[2 * i] = left, ttl
        charges[i] = {scope, seconds, key, ttl}
        longest = math.min(longest, left)
    end
    if longest < shortest and enforce then
        return {'exceeded', windows, minutes, 0, {}}
    end
    length = enforce and longest or length
end

if fits then
    for i, key in ipairs(keys) do
        if ttls[i] > 0 then
            redis.call('INCR', key)
        else
            -- New, or (-1) a counter that somebody left without an end, which would refuse for ever.
            redis.call('SET', key, counts[i] + 1, 'PX', lengths[i])
            windows[2 * i] = lengths[i]
        end
        windows[2 * i - 1] = counts[i] + 1
    end
end
if grant ~= '' then
    redis.call('SET', grant_key, 1, 'PX', grant_ms)
end
if slot ~= '' then
    local packed = ''
    for _, charge in ipairs(charges) do
        local scope, seconds, key, ttl = unpack(charge)
        if ttl > 0 then
            redis.call('INCRBY', key, whole(length))
        else
            redis.call('SET', key, whole(length), 'PX', seconds * 1000)
        end
        packed = packed .. charged(scope, seconds, redis.call('PEXPIRETIME', key), length)
    end
    local key, began, ends = call_key(tenant, slot), whole(now), whole(now + lease)
    redis.call(
        'HSET', key, 'tenant', tenant, 'user_key', user, 'digest', digest, 'started_at', began, 'deadline', ends
    )
    if packed ~= '' then
        redis.call('HSET', key, 'minutes', packed)
    end
    redis.call('PEXPIRE', key, SETS_KEPT)
    redis.call('SET', offer_key(tenant, user, digest), slot, 'PX', lease)
    enter(tenant, user, slot, began, ends, ends)
end
return {fits and 'ok' or 'unfit', windows, minutes, slot ~= '' and length or 0, full}
