"""TLS contexts from certificate files, replaced while the service runs."""

from __future__ import annotations

import ssl
from typing import Any

from ras_triage.service.config.settings import InvalidSetting, Settings


class ReloadableContext(ssl.SSLContext):
    """A context whose new connections use another one, which can be replaced."""

    current: ssl.SSLContext

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection; asyncio calls nothing else of a server's context."""
        return self.current.wrap_bio(*given, **named)


def reloadable_context(settings: Settings) -> ReloadableContext | None:
    """Return a context that begins with what the settings say; None without TLS. Raises InvalidSetting."""
    context = server_context(settings)
    if context is None:
        return None
    found = ReloadableContext(ssl.PROTOCOL_TLS_SERVER)
    found.current = context
    return found


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context that the settings say; None without TLS. Raises InvalidSetting for files that cannot be used."""
    if settings.tls_certificate is None:
        return None
    password = settings.tls_key_password or ""  # without one, a terminal would be asked
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password)
    except (OSError, ssl.SSLError) as error:
        reason = _reason(error, "no PEM, or `tls_key_password` does not open it")
        raise InvalidSetting(f"`tls_certificate`, `tls_key`: {reason}") from None
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise InvalidSetting(f"`tls_client_ca`: {_reason(error, 'no PEM')}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _reason(error: OSError, unsaid: str) -> str:
    """Return what is wrong with a file; `unsaid` is what it means that OpenSSL gives no reason."""
    if isinstance(error, ssl.SSLError):
        return f"not what is expected there ({error.reason.lower() if error.reason else unsaid})"
    return (error.strerror or "cannot be read").lower()
