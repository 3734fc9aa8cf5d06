"""The one static token, and nothing else, opens the server; without a token it is open."""

import hashlib
import hmac

from statekeep_server.domain.errors import Unauthenticated
from statekeep_server.transport.interceptors.call import Metadata, values

AUTHORIZATION = "authorization"
_SCHEME = "bearer "


class TokenCheck:
    """Compares the token of a call with the server's.

    Digests are compared, not tokens: they have one length, so the time that a comparison takes
    tells nothing, and the token itself is not kept.
    """

    def __init__(self, token: str | None) -> None:
        self._expected = None if token is None else _digest(token)

    def check(self, metadata: Metadata) -> None:
        """Refuse a call that does not carry the token.

        Raises:
            Unauthenticated: There is none, a wrong one, or more than one.
        """
        if self._expected is None:
            return
        match values(metadata, AUTHORIZATION):
            case [str(value)] if value[: len(_SCHEME)].lower() == _SCHEME:
                if hmac.compare_digest(_digest(value[len(_SCHEME) :].strip()), self._expected):
                    return
                raise Unauthenticated("the token is not this server's")
            case _:
                raise Unauthenticated(
                    "the server needs a token: send the metadata `authorization: Bearer <token>`"
                )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
