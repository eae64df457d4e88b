"""How far long work is: how much of it is done, at what rate, and how long the rest may take."""

from __future__ import annotations

import time
from collections.abc import Callable

Advance = Callable[[int, int, str, float], None]
"""Takes how much is done, of how much, a remark, and how much a second."""


class Pace:
    """Says how far work over a number of bytes is.

    Args:
        total: Bytes of all of it. An estimate will do: what goes beyond it is said without a rest,
            and so is everything where it is 0, unknown.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = time.monotonic()

    def at(self, done: int) -> str:
        """Return the words for so many bytes done: part, rate and time left.

        The time left is that of the rest at the rate so far.
        """
        elapsed = max(time.monotonic() - self._started, 1e-3)
        whole = f" of about {self._total / 1e6:,.1f}" if self._total else ""
        text = f"{done / 1e6:,.1f}{whole} MB"
        if done <= 0:
            return text
        text += f", {done / elapsed / 1e6:,.1f} MB/s"
        rest = (self._total - done) * elapsed / done
        return text if rest < 0 or not self._total else f"{text}, about {_duration(rest)} left"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
