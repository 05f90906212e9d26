"""TLS contexts from certificate files, replaced while the service runs."""

from __future__ import annotations

import ssl
from typing import Any

from ras_triage.service.config.settings import InvalidSetting, Settings


class ReloadableContext(ssl.SSLContext):
    """TLS context that delegates new connections to another one, which can be replaced."""

    current: ssl.SSLContext

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Start a connection. asyncio calls no other method of the context of a server."""
        return self.current.wrap_bio(*arguments, **options)


def reloadable_context(settings: Settings) -> ReloadableContext | None:
    """Return a context with the certificate of the settings; None without TLS. Raises InvalidSetting."""
    context = server_context(settings)
    if context is None:
        return None
    reloadable = ReloadableContext(ssl.PROTOCOL_TLS_SERVER)
    reloadable.current = context
    return reloadable


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Return a TLS context for the settings; None without TLS. Raises InvalidSetting for invalid files."""
    if settings.tls_certificate is None:
        return None
    secret = settings.tls_key_password
    password = "" if secret is None else secret.get_secret_value()  # without a password, OpenSSL would prompt on the terminal
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password)
    except (OSError, ssl.SSLError) as error:
        reason = _reason(error, "no PEM, or wrong `tls_key_password`")
        raise InvalidSetting(f"`tls_certificate`, `tls_key`: {reason}") from None
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise InvalidSetting(f"`tls_client_ca`: {_reason(error, 'no PEM')}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _reason(error: OSError, default: str) -> str:
    """Return what is wrong with a file; `default` if OpenSSL gives no reason."""
    if isinstance(error, ssl.SSLError):
        return f"invalid content ({error.reason.lower() if error.reason else default})"
    return (error.strerror or "cannot be read").lower()
