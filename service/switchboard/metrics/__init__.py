"""Collectors, and the observers that feed them. Observers are handed to what they watch; nothing here is called by
business code. Labels are bounded: route templates, never raw paths; the first tenants, then `other`; never a user.
"""

from switchboard.metrics.collectors import Metrics

__all__ = ["Metrics"]
