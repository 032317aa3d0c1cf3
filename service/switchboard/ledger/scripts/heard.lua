-- Notes a heartbeat.
--
-- ARGV  tenant, call id

local tenant, id = arg(), arg()
beat(tenant, id)
