-- Stands before every script of this folder.
--
-- KEYS[1] is always the set of due calls of a bucket, `swb:{3}:due`. All keys of a tenant are in its bucket and share
-- the hash tag, so that one script can decide on everything; the other keys' names are made from this one.
-- Times are milliseconds of Redis's own clock. `~` begins the id of a reservation, which no provider's id does.
--
--   swb:{3}:due                                 sorted set of tenant/id, by when something is to be done
--   swb:{3}:where                               hash: id of an open call → tenant
--   swb:{3}:suspended                           hash: tenant → since when; `#` → version
--   swb:{3}:generation                          a name that is lost with the data
--   swb:{3}:acme:call:<id>                      hash: a call, or a reservation
--   swb:{3}:acme:open, …:open:<user key>        sorted sets: a tenant's open ids by deadline, a user's by start
--   swb:{3}:acme:offer:<user key>:<digest>      the id that an offer led to
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

local function leave(tenant, user, id)
    redis.call('ZREM', user_key(tenant, user), id)
    redis.call('ZREM', open_key(tenant), id)
    redis.call('HDEL', BASE .. 'where', id)
end

-- Gives back what was reserved of minutes and not used; a window that has begun anew since owes nothing.
local function refund(key, tenant, user, used)
    local packed = redis.call('HGET', key, 'minutes')
    if not packed then
        return
    end
    for _, one in ipairs(cjson.decode(packed)) do
        local window = window_key(tenant, user, 'minutes', one[1], one[2])
        if redis.call('PEXPIRETIME', window) == tonumber(one[3]) then
            redis.call('DECRBY', window, whole(math.max(0, tonumber(one[4]) - used)))
        end
    end
    redis.call('HDEL', key, 'minutes')
end

-- A reservation that came to nothing.
local function drop(tenant, id)
    local key = call_key(tenant, id)
    local user, digest = unpack(redis.call('HMGET', key, 'user_key', 'digest'))
    if user then
        refund(key, tenant, user, 0)
        leave(tenant, user, id)
        local offer = offer_key(tenant, user, digest)
        if redis.call('GET', offer) == id then
            redis.call('DEL', offer)
        end
        redis.call('DEL', key)
    end
    redis.call('ZREM', DUE, member(tenant, id))
end

-- An open call that was made elsewhere, or whose data were lost: written as it is told.
local function write()
    local call = {}
    local id = arg()
    local key_values = {}
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
