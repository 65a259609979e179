"""TLS connections that come to nothing: counted, and told of in one line now and then.

Rule of this module: it counts, and knows nothing of certificates. gRPC for Python tells nobody of a handshake that
fails: its core writes a line to stderr at its level INFO, which it calls unsuitable for production, without the peer;
there is no callback, no counter and no log sink. What is public is that it asks for the certificate each time that a
connection comes (`grpc.dynamic_ssl_server_credentials`), and who makes a call. A connection that came and made none in
time was refused, or was none of a gRPC client's.
"""

import time
from collections import deque

from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

PATIENCE_S = 15.0
"""How long a connection may be there without a call, in seconds; longer than a handshake may take."""

INTERVAL_S = 60.0
"""How often a line is written at the most, in seconds."""

MOST_PEERS = 10_000
"""How many peers are remembered; of those that are forgotten a call may be taken for the first of another's."""

MOST_PENDING = 100_000
"""How many connections are waited for; those beyond that are not counted."""


class Handshakes:
    """The connections that have come, and made no call yet. `began` is called in any thread, the rest in one."""

    def __init__(self) -> None:
        self.pending: deque[float] = deque(maxlen=MOST_PENDING)
        """When they came, on the clock of `time.monotonic`. Which of them is whose is not known, only how many."""
        self._peers: dict[str, None] = {}
        self._came_to_nothing = 0
        self._told_at = float("-inf")

    def began(self) -> None:
        """A connection has come."""
        self.pending.append(time.monotonic())

    def used(self, peer: str) -> None:
        """A call has come from a peer: the first one shows that the peer's handshake went well."""
        is_new = peer not in self._peers
        self._peers.pop(peer, None)
        self._peers[peer] = None  # Behind the others: the first is the one that is forgotten.
        if len(self._peers) > MOST_PEERS:
            del self._peers[next(iter(self._peers))]
        if is_new and self.pending:
            self.pending.popleft()

    def tell(self, now: float) -> None:
        """Writes a line about those that came to nothing since the last one, unless it is too early for another.

        Args:
            now: On the clock of `time.monotonic`.

        """
        while self.pending and self.pending[0] < now - PATIENCE_S:
            self.pending.popleft()
            self._came_to_nothing += 1
        if not self._came_to_nothing or now - self._told_at < INTERVAL_S:
            return
        lost, self._came_to_nothing, self._told_at = self._came_to_nothing, 0, now
        logger.warning(
            "TLS connections that made no call within %g s: %d. Their clients speak no TLS, do not trust the "
            "certificate, have none that is trusted here, or only try the port. A client's own error says which",
            PATIENCE_S,
            lost,
        )
