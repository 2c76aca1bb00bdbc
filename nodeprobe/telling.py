"""What the agent says as it goes: one line an event, for people or as JSON. Never evidence, never keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

TEXT_CHARS_MAX = 1000


class Tell(Protocol):
    """Says that something happened: a stable name, a sentence for people, and facts for programs."""

    def __call__(self, event: str, text: str, **facts: Any) -> None: ...


def teller(stream: TextIO, *, as_json: bool, now: Callable[[], datetime], **always: Any) -> Tell:
    """A Tell that writes lines to `stream`; `always` are facts of every line, and `name` stands before the text."""

    def tell(event: str, text: str, **facts: Any) -> None:
        at = now().astimezone(UTC)
        said = printable(text)
        if as_json:
            line = json.dumps(
                {"time": at.isoformat(timespec="milliseconds"), "event": event, "text": said, **always, **facts}
            )
        else:
            name = f" {always['name']}:" if "name" in always else ""
            line = f"{at:%H:%M:%S}{name} {said}"
        stream.write(line + "\n")
        stream.flush()

    return tell


def printable(text: str) -> str:
    """One line, safe for a terminal: the other side's words may be among them."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:TEXT_CHARS_MAX])
