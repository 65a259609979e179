"""The dates of a server's certificate, as a client would check them.

Rule of this module: Python's `ssl` reads no dates of a certificate before it is sent, so a client of ours makes a
handshake in memory. Nothing but the dates is judged.
"""

import ssl
from pathlib import Path

PROBLEMS = {9: "it is not valid yet", 10: "it has expired"}
"""What is wrong, by OpenSSL's codes X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""

MAX_TURNS = 4
"""Maximum number of turns of both sides; a client checks the certificate in its second."""


def date_problem(context: ssl.SSLContext, cert: Path) -> str:
    """Returns why clients refuse a certificate by its dates; empty if they do not.

    Args:
        context: Context of a server with the certificate.
        cert: File of the certificate.

    Raises:
        OSError: The file cannot be read any more.

    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # The certificate itself is trusted, without its authority.
    trusting.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for turn in range(2 * MAX_TURNS):
        try:
            (server if turn % 2 else client).do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            return PROBLEMS.get(error.verify_code, "")
        except ssl.SSLError:  # The server requires a certificate of its client, which has checked that of the server.
            return ""
    return ""
