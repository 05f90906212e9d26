"""Messages as events, results, options and the client: what the bridges in this folder share."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from ras_triage.service.client import ClientError


def identified(message: bytes, position: str) -> bytes:
    """Return an event that has an id, so that the service recognises a message that is delivered again.

    `position` is where the queue stores the message. A message that is not a JSON object is returned unchanged: the service refuses it with
    the reason.
    """
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        return message
    if not isinstance(event, dict) or event.get("id") is not None:
        return message
    return json.dumps({**event, "id": position}).encode()


def is_refused(result: bytes) -> bool:
    """Return whether a result of the service is a problem. The client retries transient problems and raises them in the end."""
    return "action" not in json.loads(result)


def print_retry(failure: ClientError, seconds: float) -> None:
    """Print a failed request that is retried."""
    print(f"retry in {seconds:.1f} s: {failure}", file=sys.stderr, flush=True)


def connection(options: Namespace) -> dict[str, Any]:
    """Return the arguments of the client of the service."""
    return {
        "base_url": options.service,
        "token": os.environ.get("RAS_TRIAGE_TOKEN"),
        "ca_file": options.ca_file,
        "on_retry": print_retry,
    }


def parser(description: str) -> ArgumentParser:
    """Return a parser with the options that all bridges have."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--service", default="http://127.0.0.1:8080", metavar="URL", help="the service (default: %(default)s)")
    parser.add_argument("--ca-file", metavar="FILE", help="CA certificates for the service in PEM (default: those of the system)")
    parser.add_argument("--decisions", metavar="NAME", help="send the decisions there (default: they are only stored by the service)")
    parser.add_argument("--rejected", metavar="NAME", required=True, help="send messages there that the service refuses")
    return parser
