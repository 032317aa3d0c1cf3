-- Takes back a reservation that no call came of; the grant as well if the provider was not tried.
--
-- ARGV  tenant, slot id or '', grant id or '' (to keep it used up)

local tenant, slot, grant = arg(), arg(), arg()
if slot ~= '' then
    drop(tenant, slot)
end
if grant ~= '' then
    redis.call('DEL', BASE .. tenant .. ':grant:' .. grant)
end
