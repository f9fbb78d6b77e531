"""Signals: a first one is remembered or obeyed at once, a second one always ends; handlers are put back."""

import signal
import threading

import pytest

from crossdistill.train.signals import ended_like_ctrl_c, stop_requests

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", BOTH)
def test_a_first_signal_is_remembered_and_a_second_one_stops(number: int) -> None:
    before = signal.getsignal(number)
    with stop_requests() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", BOTH)
def test_what_need_not_be_finished_is_broken_off(number: int) -> None:
    with stop_requests() as stop:
        with pytest.raises(KeyboardInterrupt), stop.at_once():
            signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt), stop.at_once():
            pytest.fail("it was begun after the signal")


def test_after_such_work_a_first_signal_is_remembered_again() -> None:
    with stop_requests() as stop:
        with stop.at_once():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()


def test_sigterm_ends_what_handles_no_signal_and_a_second_one_ends_the_process() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ended_like_ctrl_c():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_training_inside_the_command_line_remembers_the_signal_all_the_same() -> None:
    with ended_like_ctrl_c():
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_other_threads_leave_signals_as_they_are() -> None:
    handlers: list[object] = []

    def run() -> None:
        with ended_like_ctrl_c(), stop_requests() as stop:
            handlers.extend([signal.getsignal(signal.SIGTERM), stop.is_set()])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM), False]
