"""`switchboard probe`: asks a running service as a user would, and as nobody may, by the way that callers take.

It knows the service by its contract alone, so it says the same of any replica, version or proxy in front.
"""
