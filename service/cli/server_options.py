"""Commands that ask a service: which one, as whom, and what to say when it does not answer."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from ssl import SSLError
from typing import TYPE_CHECKING, Final

from ras_triage.service.cli.output import BAD_INPUT, complain, warn
from ras_triage.service.config.settings import InvalidSetting

if TYPE_CHECKING:  # commands that ask nothing start faster without it
    from ras_triage.service.client import Client, ClientError, ProblemAnswer, Retry

GAVE_UP: Final = 1
"""Exit status: the service did not answer, or could not."""

URL_VARIABLE: Final = "RAS_TRIAGE_URL"
TOKEN_VARIABLE: Final = "RAS_TRIAGE_TOKEN"

_DEFAULT_URL: Final = "http://127.0.0.1:8080"

_PATIENCE: Final = 4
"""Attempts, where somebody waits for the answer to one question."""

_WORTH_TELLING_S: Final = 1.0
"""Shorter pauses are nobody's business."""


def add_server(command: ArgumentParser) -> None:
    """Where the service is, and who asks."""
    default = os.environ.get(URL_VARIABLE) or _DEFAULT_URL
    asked = command.add_argument_group("service")
    asked.add_argument("--server", default=default, metavar="URL", help=f"the service (default: ${URL_VARIABLE}, or {_DEFAULT_URL})")
    asked.add_argument("--token-file", type=Path, metavar="FILE", help=f"a file with the API key or JWT (default: ${TOKEN_VARIABLE})")
    asked.add_argument("--ca-file", type=Path, metavar="FILE", help="authorities that vouch for the service (default: the machine's own)")


def ask(options: Namespace, use: Callable[[Client], int], retry: Retry | None = None) -> int:
    """Put a client to use, and say how it went: 2 refused, 1 no answer. Raises InvalidSetting."""
    from httpx import InvalidURL, UnsupportedProtocol  # noqa: PLC0415

    from ras_triage.service.client import ClientError, ProblemAnswer, Retry, UnexpectedAnswer  # noqa: PLC0415

    try:
        with _client(options, retry or Retry(attempts=_PATIENCE)) as client:
            return use(client)
    except ProblemAnswer as answer:
        complain(answer.problem, as_json=getattr(options, "json", False))
        return _status(answer)
    except UnexpectedAnswer as error:
        warn(f"`{_shown(options.server)}`: {error}")
        return GAVE_UP
    except ClientError as error:
        if isinstance(error.__cause__, UnsupportedProtocol):
            raise InvalidSetting(f"`{_shown(options.server)}` is not the URL of a service: expected http:// or https://") from None
        warn(f"`{_shown(options.server)}` gives no answer: {error}")
        return GAVE_UP
    except InvalidURL as error:
        reason = "" if "@" in options.server else f": {str(error).lower()}"  # which may quote a part of a password
        raise InvalidSetting(f"`{_shown(options.server)}` is not a URL{reason}") from None


def _shown(url: str) -> str:
    """Return a URL without the user and password that it may hold."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _client(options: Namespace, retry: Retry) -> Client:
    from ras_triage.service.client import Client  # noqa: PLC0415

    token = _token(options.token_file)
    try:
        return Client(options.server, token=token, ca_file=options.ca_file, retry=retry, on_retry=_tell_of_retry)
    except OSError as error:  # of the file with authorities: nothing else is opened yet
        reason = "holds no certificate in PEM" if isinstance(error, SSLError) else (error.strerror or "cannot be read").lower()
        raise InvalidSetting(f"`{options.ca_file}`: {reason}") from None


def _tell_of_retry(failure: ClientError, seconds: float) -> None:
    if seconds >= _WORTH_TELLING_S:
        warn(f"{failure}; trying again in {seconds:.0f} s")


def _status(answer: ProblemAnswer) -> int:
    """A request that is refused will be refused again; a service that cannot answer now may later."""
    status = answer.problem.status
    return GAVE_UP if status >= 500 or status == 429 else BAD_INPUT


def _token(file: Path | None) -> str | None:
    from ras_triage.service.client._request import bearer  # noqa: PLC0415

    text = os.environ.get(TOKEN_VARIABLE) or None if file is None else _read(file)
    if text is None:
        return None
    try:
        bearer(text.strip())
    except ValueError as error:
        raise InvalidSetting(f"`{file or TOKEN_VARIABLE}`: {error}") from None
    return text.strip()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise InvalidSetting(f"`{file}`: {(error.strerror or 'cannot be read').lower()}") from None
