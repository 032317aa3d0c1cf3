-- Writes a call back that Redis has lost, as whoever opened it remembers it. What is known stays as it is.
--
-- ARGV  the call as `write` takes it

write()
