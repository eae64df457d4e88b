"""What each process must have for itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Slot(Generic[T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: T | None = None


class PerProcess(Generic[T]):
    """Something that each process makes for itself, once, when it is first needed.

    A fork copies connections that parent and child then would both speak on, and locks that a
    thread may have held which the child does not have. The child's number differs, so it finds
    neither.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._slots: dict[int, _Slot[T]] = {}

    def get(self) -> T:
        """Return this process's."""
        slot = self._slots.setdefault(os.getpid(), _Slot())
        with slot.lock:
            if slot.value is None:
                slot.value = self._make()
            return slot.value

    def take(self) -> T | None:
        """Return this process's if it was made, and forget it."""
        slot = self._slots.pop(os.getpid(), None)
        return None if slot is None else slot.value
