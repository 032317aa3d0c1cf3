"""Evidence: one record per decision, written before the answer leaves.

Business code fills the event in as facts become known; whoever received a credential is on record, or received none.
A record never holds a token, a subject, an SDP or an instruction text.
"""

from switchboard.audit.event import MAX_TEXT, RECORDED, Action, Caller, Event, bounded
from switchboard.audit.recording import Audit
from switchboard.audit.sinks import Sink

__all__ = ["MAX_TEXT", "RECORDED", "Action", "Audit", "Caller", "Event", "Sink", "bounded"]
