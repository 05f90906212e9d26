"""Options and error handling of commands that call a service."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from ssl import SSLError
from typing import TYPE_CHECKING, Final

from ras_triage.service.cli.option_names import name_options
from ras_triage.service.cli.output import BAD_INPUT, print_problem, warn
from ras_triage.service.config.settings import InvalidSetting

if TYPE_CHECKING:  # commands that call no service start faster without it
    from ras_triage.service.client import Client, ClientError, ProblemResponse, Retry

NO_RESPONSE: Final = 1
"""Exit status: the service did not respond, or could not."""

URL_VARIABLE: Final = "RAS_TRIAGE_URL"
TOKEN_VARIABLE: Final = "RAS_TRIAGE_TOKEN"

_DEFAULT_URL: Final = "http://127.0.0.1:8080"

_ATTEMPTS: Final = 4
"""Attempts for a single request, for which a person waits."""

_REPORTED_PAUSE_S: Final = 1.0
"""Shorter pauses before a retry are not reported."""


def add_server(command: ArgumentParser) -> None:
    """Add the URL of the service and the credentials."""
    group = command.add_argument_group("service")
    group.add_argument("--server", default=_default_url(), metavar="URL", help=f"service (default: ${URL_VARIABLE}, or {_DEFAULT_URL})")
    group.add_argument("--token-file", type=Path, metavar="FILE", help=f"file with the API key or JWT (default: ${TOKEN_VARIABLE})")
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="CA certificates for the service in PEM (default: those of the system)")


def given_server_options(options: Namespace) -> list[str]:
    """Return the options for the service that differ from their defaults."""
    given = {
        "--server": options.server != _default_url(),
        "--token-file": options.token_file is not None,
        "--ca-file": options.ca_file is not None,
    }
    return [option for option, is_given in given.items() if is_given]


def _default_url() -> str:
    return os.environ.get(URL_VARIABLE) or _DEFAULT_URL


def call_service(
    options: Namespace, use: Callable[[Client], int], retry: Retry | None = None, parameters: Mapping[str, str] | None = None
) -> int:  # fmt: skip
    """Call `use` with a client and return the exit status: 2 refused, 1 no response. Raises InvalidSetting.

    `parameters`: the options of the command for query parameters that a problem may name.
    """
    from httpx import InvalidURL, UnsupportedProtocol  # noqa: PLC0415

    from ras_triage.service.client import ClientError, ProblemResponse, Retry, UnexpectedResponse  # noqa: PLC0415

    try:
        with _client(options, retry or Retry(attempts=_ATTEMPTS)) as client:
            return use(client)
    except ProblemResponse as error:
        print_problem(name_options(error.problem, parameters or {}), as_json=getattr(options, "json", False))
        return _status(error)
    except UnexpectedResponse as error:
        warn(f"`{_without_credentials(options.server)}`: {error}")
        return NO_RESPONSE
    except ClientError as error:
        if isinstance(error.__cause__, UnsupportedProtocol):
            raise InvalidSetting(
                f"`{_without_credentials(options.server)}` is not the URL of a service; expected http:// or https://, or http+unix://PATH"
            ) from None
        warn(f"no response from `{_without_credentials(options.server)}`: {error}")
        return NO_RESPONSE
    except InvalidURL as error:
        reason = "" if "@" in options.server else f": {str(error).lower()}"  # the text may quote a part of a password
        raise InvalidSetting(f"invalid URL `{_without_credentials(options.server)}`{reason}") from None


def _without_credentials(url: str) -> str:
    """Return a URL without user and password."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _client(options: Namespace, retry: Retry) -> Client:
    from ras_triage.service.client import Client  # noqa: PLC0415

    token = _token(options.token_file)
    try:
        return Client(options.server, token=token, ca_file=options.ca_file, retry=retry, on_retry=_report_retry)
    except OSError as error:  # only the CA file is opened here
        reason = "no certificate in PEM" if isinstance(error, SSLError) else (error.strerror or "cannot be read").lower()
        raise InvalidSetting(f"`{options.ca_file}`: {reason}") from None


def _report_retry(failure: ClientError, seconds: float) -> None:
    if seconds >= _REPORTED_PAUSE_S:
        warn(f"{failure}; retry in {seconds:.0f} s")


def _status(error: ProblemResponse) -> int:
    """Return the exit status for a problem: refused, or unavailable and worth a retry."""
    status = error.problem.status
    return NO_RESPONSE if status >= 500 or status == 429 else BAD_INPUT


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
