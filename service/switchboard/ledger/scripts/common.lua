-- Stands before every script of this folder.
--
-- KEYS[1] is always the set of due calls of a bucket, `swb:{3}:due`. All keys of a tenant are in its bucket and share
-- the hash tag, so that one script can decide on everything; the other keys' names are made from this one.
-- Times are milliseconds of Redis's own clock. `~` begins the id of a reservation, which no provider's id does.
--
--   swb:{3}:due                                 sorted set of tenant/id, by when something is to be done
--   swb:{3}:where                               hash: id of an open call → tenant
--   swb:{3}:suspended                           hash: tenant → when its kill switch was flipped, negative if off again
--   swb:{3}:generation                          a name that is lost with the data
--   swb:{3}:acme:call:<id>                      hash: a call, or a reservation
--   swb:{3}:acme:open, …:open:<user key>        sorted sets: a tenant's open ids by deadline, a user's by start
--   swb:{3}:acme:offer:<user key>:<digest>      the id that an offer led to, as long as that is open
--   swb:{3}:acme:quota:…, …:minutes:…, …:grant:<id>

local DUE = KEYS[1]
local BASE = string.sub(DUE, 1, -4)
local SETS_KEPT = 7800000 -- longer than anything in them lasts
local FIELDS = {
    'tenant', 'issuer', 'user_key', 'preset', 'provider', 'key_name', 'started_at', 'deadline', 'grant_id',
    'idle', 'heard_at', 'ending', 'attempts', 'ended_at', 'ended_by',
}

local taken = 0
local function arg()
    taken = taken + 1
    return ARGV[taken]
end
local function number_arg()
    return tonumber(arg())
end

local function whole(number)
    return string.format('%.0f', number)
end

local function now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function call_key(tenant, id)
    return BASE .. tenant .. ':call:' .. id
end
local function open_key(tenant)
    return BASE .. tenant .. ':open'
end
local function user_key(tenant, user)
    return BASE .. tenant .. ':open:' .. user
end
local function offer_key(tenant, user, digest)
    return BASE .. tenant .. ':offer:' .. user .. ':' .. digest
end
local function window_key(tenant, user, kind, scope, seconds)
    local whose = scope == 'user' and 'user:' .. user or 'tenant'
    return BASE .. tenant .. ':' .. kind .. ':' .. whose .. ':' .. seconds
end
local function member(tenant, id)
    return tenant .. '/' .. id
end

local function is_suspended(tenant)
    return tonumber(redis.call('HGET', BASE .. 'suspended', tenant) or 0) > 0
end

local function is_reservation(id)
    return string.sub(id, 1, 1) == '~'
end

-- A call as Python reads it: its id, then FIELDS.
local function shown(tenant, id)
    local values = redis.call('HMGET', call_key(tenant, id), unpack(FIELDS))
    table.insert(values, 1, id)
    return values
end

local function is_open(key)
    local found = redis.call('HMGET', key, 'tenant', 'ended_at')
    return found[1] and not found[2]
end

local function enter(tenant, user, id, order, deadline, due)
    redis.call('ZADD', user_key(tenant, user), order, id)
    redis.call('PEXPIRE', user_key(tenant, user), SETS_KEPT)
    redis.call('ZADD', open_key(tenant), deadline, id)
    redis.call('PEXPIRE', open_key(tenant), SETS_KEPT)
    redis.call('ZADD', DUE, due, member(tenant, id))
end

-- Its slot is free, and its offer forgotten.
local function leave(tenant, id)
    local user, digest = unpack(redis.call('HMGET', call_key(tenant, id), 'user_key', 'digest'))
    redis.call('ZREM', open_key(tenant), id)
    redis.call('HDEL', BASE .. 'where', id)
    redis.call('ZREM', DUE, member(tenant, id))
    if user then
        redis.call('ZREM', user_key(tenant, user), id)
    end
    if digest and redis.call('GET', offer_key(tenant, user, digest)) == id then
        redis.call('DEL', offer_key(tenant, user, digest))
    end
end

-- What a window of minutes was charged for a call, in its field `minutes`. Short, so that Redis keeps the hash packed.
local function charged(scope, seconds, ends, length)
    return string.sub(scope, 1, 1) .. seconds .. '/' .. whole(ends) .. '/' .. whole(length)
end

-- Gives back what was reserved of minutes and not used; a window that has begun anew since owes nothing.
local function refund(tenant, id, used)
    local key = call_key(tenant, id)
    local user, minutes = unpack(redis.call('HMGET', key, 'user_key', 'minutes'))
    for scope, seconds, ends, length in string.gmatch(minutes or '', '(%a)(%d+)/(%d+)/(%d+)') do
        local window = window_key(tenant, user, 'minutes', scope == 'u' and 'user' or 'tenant', seconds)
        if redis.call('PEXPIRETIME', window) == tonumber(ends) then
            redis.call('DECRBY', window, whole(math.max(0, length - used)))
        end
    end
    redis.call('HDEL', key, 'minutes')
end

-- A reservation that came to nothing, or an id whose data are gone.
local function drop(tenant, id)
    refund(tenant, id, 0)
    leave(tenant, id)
    redis.call('DEL', call_key(tenant, id))
end

-- A reservation whose lease is over: nobody knows what came of it, so it counts as long as it was held.
local function lapse(tenant, id)
    local began, deadline = unpack(redis.call('HMGET', call_key(tenant, id), 'started_at', 'deadline'))
    if began and deadline then
        refund(tenant, id, deadline - began)
    end
    drop(tenant, id)
end

-- A heartbeat, or what stands for one: the next has to come within the call's idle time.
local function beat(tenant, id)
    local key, now = call_key(tenant, id), now_ms()
    local deadline, idle, ending, ended = unpack(redis.call('HMGET', key, 'deadline', 'idle', 'ending', 'ended_at'))
    if deadline and not ending and not ended then
        redis.call('HSET', key, 'heard_at', whole(now))
        if idle then
            redis.call('ZADD', DUE, whole(math.min(deadline, now + idle)), member(tenant, id))
        end
    end
end

-- An open call that was made elsewhere, or whose data were lost: written as it is told, unless it is known.
local function write()
    local id, call, key_values = arg(), {}, {}
    for _, name in ipairs(FIELDS) do
        local value = arg()
        call[name] = value
        if value ~= '' then
            table.insert(key_values, name)
            table.insert(key_values, value)
        end
    end
    local key = call_key(call.tenant, id)
    if redis.call('EXISTS', key) == 0 then
        redis.call('HSET', key, unpack(key_values))
        redis.call('PEXPIRE', key, SETS_KEPT)
        enter(call.tenant, call.user_key, id, call.started_at, call.deadline, call.deadline)
        redis.call('HSET', BASE .. 'where', id, call.tenant)
    end
    return call.tenant, id, key
end
