import pytest

from switchboard.ratelimit import UNLIMITED, Quota, Standing, Window, quotas, share


def test_the_notation_of_the_library():
    assert quotas("user", ["10/minute", "5 per 2 hours", "1/second;100/day"]) == (
        Quota("user", 1, 1),
        Quota("user", 10, 60),
        Quota("user", 5, 7200),
        Quota("user", 100, 86400),
    )


def test_of_two_with_one_window_the_smaller_counts():
    assert quotas("tenant", ["10/minute", "7/minute", "9/60 second"]) == (Quota("tenant", 7, 60),)


@pytest.mark.parametrize("text", ["", "ten/minute", "10/fortnight", "10"])
def test_what_is_no_rate(text):
    with pytest.raises(ValueError, match=r"parse|granularity"):
        quotas("user", [text])


@pytest.mark.parametrize(
    ("quota", "name", "text"),
    [
        (Quota("user", 10, 60), "user-minute", "10 per minute per user"),
        (Quota("tenant", 5, 7200), "tenant-7200s", "5 per 7200 seconds for the whole tenant"),
        (Quota("user", 1, 86400), "user-day", "1 per day per user"),
    ],
)
def test_names(quota, name, text):
    assert (quota.name, str(quota)) == (name, text)


def test_a_share_is_never_nothing():
    assert [share(Quota("user", limit, 60), 3).limit for limit in (1, 2, 3, 10)] == [1, 1, 1, 3]


MINUTE, DAY, ALL = Quota("user", 3, 60), Quota("user", 9, 86400), Quota("tenant", 5, 60)


def test_headers_show_ones_own_windows():
    standing = Standing((Window(MINUTE, 2, 59.2), Window(DAY, 8, 86399.0), Window(ALL, 4, 30.0)))
    assert standing.headers() == {
        "ratelimit-policy": '"user-minute";q=3;w=60, "user-day";q=9;w=86400',
        "ratelimit": '"user-minute";r=2;t=60, "user-day";r=8;t=86399',
    }


def test_headers_show_the_tenants_window_where_it_binds():
    standing = Standing((Window(MINUTE, 2, 60.0), Window(ALL, 1, 30.0)))
    assert standing.headers()["ratelimit"] == '"user-minute";r=2;t=60, "tenant-minute";r=1;t=30'


def test_without_quotas_there_is_nothing_to_say():
    assert UNLIMITED.headers() == {}


def test_a_refusal_waits_for_the_last_window():
    minute, day = Window(MINUTE, 0, 10.5), Window(DAY, 0, 4000.0)
    refusal = Standing((minute, day), (minute, day)).refusal()
    assert refusal.retry_after == 4000
    assert refusal.violated == ["user-minute", "user-day"]
    assert (
        refusal.detail == "The limit of 3 per minute per user and 9 per day per user is used up; try again in 4000 s."
    )
