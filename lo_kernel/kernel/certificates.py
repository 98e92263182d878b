"""The machine's CA certificates, when somebody needs them: with the first TLS connection, and not before.

`aiohttp` makes two contexts for its client while it is imported, and for each OpenSSL reads some 140
certificates: 40 ms of every start, for a server that speaks no TLS. Within `certificates_later` a context is
made without them, and takes them in before its first connection: nothing is ever verified with fewer.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["certificates_later"]


class _LateContext(ssl.SSLContext):
    """A context that loads the machine's certificates before anybody connects with it, or looks at them."""

    _loading: threading.Lock
    _loaded: bool

    def _load(self) -> None:
        with self._loading:  # two threads may connect first
            if not self._loaded:
                self.set_default_verify_paths()
                self._loaded = True

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self._load()
        return super().wrap_socket(*args, **options)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        self._load()
        return super().wrap_bio(*args, **options)

    def get_ca_certs(self, *args: Any, **options: Any) -> Any:
        self._load()
        return super().get_ca_certs(*args, **options)

    def cert_store_stats(self) -> dict[str, int]:
        self._load()
        return super().cert_store_stats()


@contextmanager
def certificates_later() -> Iterator[None]:
    """Contexts that are made meanwhile load the machine's certificates with their first connection.

    >>> with certificates_later():
    ...     context = ssl.create_default_context()
    >>> context.cert_store_stats() == ssl.create_default_context().cert_store_stats()
    True
    """

    def later(self: ssl.SSLContext) -> None:
        if type(self) is ssl.SSLContext:
            self.__class__ = _LateContext
            self._loading, self._loaded = threading.Lock(), False  # type: ignore[attr-defined]
        else:  # somebody's own kind of context
            inherited(self)

    inherited = ssl.SSLContext.set_default_verify_paths
    ssl.SSLContext.set_default_verify_paths = later  # type: ignore[method-assign]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # the C base class has it
