"""The switches that may change while a server runs; each request reads them once."""

from dataclasses import dataclass

from statekeep_server.domain.model import Path


@dataclass(frozen=True, slots=True)
class Flags:
    """One consistent reading of the switches.

    Attributes:
        enable_optimized_persistence: ENABLE_OPTIMIZED_PERSISTENCE; false is the standard path.
    """

    enable_optimized_persistence: bool = False

    @property
    def path(self) -> Path:
        """The path that new requests take."""
        return Path.OPTIMIZED if self.enable_optimized_persistence else Path.STANDARD
