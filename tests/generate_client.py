"""Generator of the synchronous client: `make client` writes `service/client/_sync.py` from `service/client/_async.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

CLIENT: Final = Path(__file__).parent.parent / "service" / "client"
SOURCE: Final = CLIENT / "_async.py"
TARGET: Final = CLIENT / "_sync.py"

_PASSAGES: Final = {
    '"""Asynchronous client (asyncio or any other event loop that anyio supports)."""\n': (
        '"""Synchronous client."""\n\n# Generated from _async.py by `make client`; do not edit.\n'
    ),
    "from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping": (
        "import time\nfrom collections.abc import Generator, Iterable, Iterator, Mapping"
    ),
    "import aclosing, closing": "import closing",
    "import anyio\n": "",
    "AsyncIterable[SentEvent] | Iterable[SentEvent]": "Iterable[SentEvent]",
    "Asynchronous client of the service, with the calls of `Client`. Belongs to one event loop.": (
        "Synchronous client of the service. Safe to share between threads."
    ),
}
_WORDS: Final = {
    r"async (?=def|with|for)": "",
    r"await ": "",
    r"\banyio\.sleep": "time.sleep",
    r"\b(chunks|decoded_body)_async\b": r"\1",
    r"\b(__)?a(closing|close|next|enter__|exit__|iter_sse)\b": r"\1\2",
    r"\bAsync(Client|Iterator|BaseTransport|HTTPTransport)\b": r"\1",
    r"\bAsyncGenerator\[T, None\]": "Generator[T, None, None]",
}


def synchronous(source: str) -> str:
    """Return the source of the synchronous client for that of the asynchronous one."""
    for passage, replacement in _PASSAGES.items():
        assert passage in source, f"not in {SOURCE.name}: {passage}"
        source = source.replace(passage, replacement)
    for pattern, replacement in _WORDS.items():
        source = re.sub(pattern, replacement, source)
    return source


if __name__ == "__main__":
    TARGET.write_text(synchronous(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
