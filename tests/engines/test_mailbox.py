"""What a driver and its tasks leave for each other."""

from kdbench.engines.mailbox import Mailbox


def test_news_are_told_once_and_in_their_order() -> None:
    mailbox = Mailbox()
    assert mailbox.begins("a")
    mailbox.tell("a", "a line about something that went wrong")
    assert mailbox.collect(stop=False, closing=False) == [("a", None), ("a", "a line about something that went wrong")]
    assert mailbox.collect(stop=False, closing=False) == []


def test_what_runs_stops_when_it_is_asked_to() -> None:
    mailbox = Mailbox()
    assert not mailbox.tell("a", "")
    mailbox.collect(stop=True, closing=True)
    assert mailbox.tell("a", "")


def test_nothing_begins_while_it_closes_and_what_runs_goes_on() -> None:
    mailbox = Mailbox()
    mailbox.begins("a")
    mailbox.collect(stop=False, closing=True)
    assert not mailbox.begins("b") and not mailbox.tell("a", "")
    assert [label for label, _ in mailbox.collect(stop=False, closing=True)] == ["a"], "what did not begin is no news"
