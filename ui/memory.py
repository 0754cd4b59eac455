"""What an app remembers: a bounded number of values, the most recently used ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The ``size`` most recently used values; safe to use from several threads."""

    def __init__(self, size: int, dropped: Callable[[Value], None] | None = None) -> None:
        self._size = size
        self._dropped = dropped
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """The value, which counts as used now, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Remember the value and forget the one used longest ago when there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            forgotten = [self._values.popitem(last=False)[1] for _ in range(len(self._values) - self._size)]
        for old in forgotten:
            if self._dropped is not None:
                self._dropped(old)
