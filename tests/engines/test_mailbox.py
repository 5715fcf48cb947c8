"""What a driver and its tasks leave for each other."""

from kdbench.engines.mailbox import Desk


def test_news_are_told_once_and_in_their_order() -> None:
    desk = Desk()
    assert desk.begins("a")
    desk.tell("a", "a line about something that went wrong")
    assert desk.collect(stop=False, over=False) == [("a", None), ("a", "a line about something that went wrong")]
    assert desk.collect(stop=False, over=False) == []


def test_what_runs_stops_when_it_is_asked_to() -> None:
    desk = Desk()
    assert not desk.tell("a", "")
    desk.collect(stop=True, over=True)
    assert desk.tell("a", "")


def test_nothing_begins_when_it_is_over_and_what_runs_goes_on() -> None:
    desk = Desk()
    desk.begins("a")
    desk.collect(stop=False, over=True)
    assert not desk.begins("b") and not desk.tell("a", "")
    assert [label for label, _ in desk.collect(stop=False, over=True)] == ["a"], "what did not begin is no news"
