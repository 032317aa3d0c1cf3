-- Lists open calls: a user's by start, a tenant's or a bucket's by deadline.
--
-- ARGV  tenant or '', user key or '', most
-- Gives calls

local tenant, user, most = arg(), arg(), number_arg()
local set = tenant == '' and DUE or user == '' and open_key(tenant) or user_key(tenant, user)
local found = {}
for _, one in ipairs(redis.call('ZRANGE', set, 0, most - 1)) do
    local whose, id = tenant, one
    if tenant == '' then
        whose, id = string.match(one, '^([^/]*)/(.*)$')
    end
    if not is_reservation(id) and is_open(call_key(whose, id)) then
        table.insert(found, shown(whose, id))
    end
end
return found
