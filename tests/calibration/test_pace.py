"""What a calibration says of itself: step, share and time left, by a clock of the test."""

import pytest

from showface.calibration.pace import LINE_EVERY, Pace, pace, paced

STEPS = {"recording": 10.0, "ranges": 30.0, "probing": 60.0}


class Clock:
    """Stands still until a test moves it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO", "showface")
    return lambda: caplog.messages


def test_each_step_and_each_half_minute_has_a_line(clock, said):
    told = Pace(clock=clock)
    told.expect(STEPS)
    for second in range(100):
        told.at("recording", second, 100)
        clock.now += 1.0
    told.at("ranges", 0, 5)
    told.at("ranges", 1, 5)
    assert [line.partition(",")[0] for line in said()] == [
        *(f"recording: {second} of 100" for second in range(0, 100, int(LINE_EVERY))), "ranges: 0 of 5",
    ]  # fmt: skip


def test_time_left_is_told_by_the_speed_so_far(clock, said):
    """A machine that takes 6 s for what takes 1 s elsewhere: 60 s of 600 are over after the first step."""
    told = Pace(clock=clock)
    told.expect(STEPS)
    told.at("recording", 0, 4)
    clock.now += 60.0
    told.at("ranges", 0, 4)
    clock.now += 90.0
    told.at("ranges", 2, 4)
    clock.now += 90.0 + 270.0
    told.at("probing", 45, 60)
    assert said() == [
        "recording: 0 of 4, 0 % of all",
        "ranges: 0 of 4, 10 % of all, about 9 min left",
        "ranges: 2 of 4, 25 % of all, about 8 min left",
        "probing: 45 of 60, 85 % of all, about 2 min left",
    ]


def test_a_step_that_was_kept_tells_nothing_of_the_speed(clock, said):
    told = Pace(clock=clock)
    told.expect(STEPS)
    clock.now += 1.0  # in which recording and ranges were found on the disk
    told.at("probing", 0, 60)
    clock.now += 60.0
    told.at("probing", 10, 60)
    assert said() == ["probing: 0 of 60, 40 % of all", "probing: 10 of 60, 50 % of all, about 5 min left"]


def test_the_time_is_up_after_so_many_minutes(clock):
    told, endless = Pace(2.0, clock), Pace(None, clock)
    clock.now += 119.0
    assert not told.late
    clock.now += 2.0
    assert (told.late, endless.late) == (True, False)


def test_a_step_that_nobody_expected_has_a_line_without_a_share(clock, said):
    Pace(clock=clock).at("recording", 1, 4)
    assert said() == ["recording: 1 of 4"]


def test_a_pace_ends_with_its_block():
    with paced(1e-9):
        assert pace().late
    assert not pace().late
