"""Failed TLS handshakes: counted, and reported in a log line from time to time.

Rule of this module: it counts, and knows nothing of certificates. gRPC for Python does not report a failed handshake.
Its core writes a line without the peer to stderr at its level INFO, which it calls unsuitable for production. There is
no callback, counter or log sink. Two facts are public: gRPC fetches the certificate for each new connection
(`grpc.dynamic_ssl_server_credentials`), and each call has a peer. A connection without a call in time was refused, or
its client does not speak gRPC.
"""

import time
from collections import deque

from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

FIRST_CALL_LIMIT_S = 15.0
"""Time after which a connection without a call counts as failed, in seconds; longer than a handshake may take."""

INTERVAL_S = 60.0
"""Minimum time between two lines, in seconds."""

MAX_PEERS = 10_000
"""Maximum number of peers that are remembered. A call of a forgotten peer may count as the first call of another."""

MAX_PENDING = 100_000
"""Maximum number of connections without a call; further ones are not counted."""


class Handshakes:
    """Connections that have made no call yet. `connection_opened` may be called in any thread, the others in one."""

    def __init__(self) -> None:
        self.pending: deque[float] = deque(maxlen=MAX_PENDING)
        """Times of their arrival, on the clock of `time.monotonic`. Their peers are unknown."""
        self._peers: dict[str, None] = {}
        self._unused = 0
        self._reported_at = float("-inf")

    def connection_opened(self) -> None:
        """Counts a new connection; gRPC calls this when it fetches the certificate."""
        self.pending.append(time.monotonic())

    def call_received(self, peer: str) -> None:
        """Counts a call. The first one of a peer proves that its handshake succeeded."""
        is_new = peer not in self._peers
        self._peers.pop(peer, None)
        self._peers[peer] = None  # Moved to the end, because the first one is forgotten.
        if len(self._peers) > MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        if is_new and self.pending:
            self.pending.popleft()

    def report(self, now: float) -> None:
        """Logs how many connections failed since the last line, unless that line is too recent.

        Args:
            now: On the clock of `time.monotonic`.

        """
        while self.pending and self.pending[0] < now - FIRST_CALL_LIMIT_S:
            self.pending.popleft()
            self._unused += 1
        if not self._unused or now - self._reported_at < INTERVAL_S:
            return
        failed, self._unused, self._reported_at = self._unused, 0, now
        logger.warning(
            "TLS connections that made no call within %g s: %d. Their clients speak no TLS, do not trust the "
            "certificate, have none that is trusted here, or only try the port. A client's own error says which",
            FIRST_CALL_LIMIT_S,
            failed,
        )
