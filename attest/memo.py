"""
Memo: remembers what was once established about bytes, by those bytes or their digest. Bounded, safe between threads.

Only for facts that time cannot change, such as "this key signed these bytes". Times are compared anew at each use.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Memo(Generic[Value]):
    """At most `size` facts; the one not asked for longest is forgotten first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._facts: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            value = self._facts.get(key)
            if value is not None:
                self._facts.move_to_end(key)
            return value

    def put(self, key: Hashable, value: Value) -> Value:
        with self._lock:
            self._facts[key] = value
            self._facts.move_to_end(key)
            if len(self._facts) > self._size:
                self._facts.popitem(last=False)
        return value
