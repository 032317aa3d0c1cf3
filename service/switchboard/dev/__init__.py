"""`switchboard dev`: the whole service on this machine, needing no key, no Redis and no network."""
