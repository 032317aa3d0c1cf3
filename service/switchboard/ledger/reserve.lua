-- Charges every window or none, and uses up a grant, in one step on Redis's own time.
--
-- KEYS  1..n   one counter per window; with a grant, KEYS[n+1] is its mark. All share one hash tag.
-- ARGV  1      1: refuse what does not fit; 0 (shadow mode): let it through, uncharged
--       2      milliseconds that the grant is still valid; 0: no grant
--       3..    for each window: its limit, its length in milliseconds
-- Gives  {state, count, ttl, count, ttl, …}: state is 'ok', 'exceeded' or 'used'; ttl in milliseconds, -1: not open
--
-- A window opens with its first request and ends its length later, as in the fixed window of the library `limits`.
-- Nothing is written when a window refuses, so that a refused request costs nothing anywhere.

local grant_ms = tonumber(ARGV[2])
local windows = (#ARGV - 2) / 2
if grant_ms > 0 and redis.call('EXISTS', KEYS[windows + 1]) == 1 then
    return {'used'}
end

local state = {'ok'}
local counts, ttls = {}, {}
for i = 1, windows do
    counts[i] = tonumber(redis.call('GET', KEYS[i])) or 0
    ttls[i] = redis.call('PTTL', KEYS[i])
    if ttls[i] == 0 then
        -- Its last millisecond: the key is still there, its window is over, and its count is not the next one's.
        counts[i] = 0
    end
    if counts[i] >= tonumber(ARGV[2 * i + 1]) then
        state[1] = 'exceeded'
    end
end

for i = 1, windows do
    local length = tonumber(ARGV[2 * i + 2])
    if state[1] == 'ok' then
        if ttls[i] > 0 then
            redis.call('INCR', KEYS[i])
        else
            -- New, or (ttl -1) a counter that somebody left without an end, which would refuse for ever.
            redis.call('SET', KEYS[i], counts[i] + 1, 'PX', length)
            ttls[i] = length
        end
        counts[i] = counts[i] + 1
    end
    state[2 * i] = counts[i]
    state[2 * i + 1] = ttls[i]
end

if grant_ms > 0 and (state[1] == 'ok' or ARGV[1] == '0') then
    redis.call('SET', KEYS[windows + 1], 1, 'PX', grant_ms)
end
return state
