"""How long a provider asks to wait, in each of the forms, and in none."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from switchboard.providers.retryafter import retry_after

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "7200"}, 3600),
        ({"retry-after": "999999999"}, 3600),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "Fri, 20 Nov 2099 12:00:00 GMT"}, 3600),
        ({}, 4),
        ({"retry-after": ""}, 4),
        ({"retry-after": "9" * 5000}, 4),
        ({"retry-after": "soon"}, 4),
        ({"retry-after": "-3"}, 4),
        ({"retry-after": "1.5"}, 4),
        ({"retry-after": "٣"}, 4),
        ({"retry-after": "nan"}, 4),
        ({"retry-after": "Fri, 99 Nov 2026 12:00:30 GMT"}, 4),
        ({"retry-after": "Fri, 20 Nov 99999999999999999999 12:00:30 GMT"}, 4),
    ],
)
def test_it_is_read_and_bounded(headers, seconds):
    assert retry_after(headers, default=4, clock=lambda: NOW) == seconds


def test_what_the_standard_library_writes_is_read():
    later = datetime.fromtimestamp(NOW + 5, UTC)
    assert retry_after({"retry-after": format_datetime(later, usegmt=True)}, clock=lambda: NOW) == 5
