"""What tfx-ranking raises, so that a caller can tell a wrong config from wrong data."""


class RankingError(ValueError):
    """Anything that tfx-ranking refuses; the message says what, why and what to do next."""


class UsageError(RankingError):
    """A command's option that cannot be what was meant; the message names the option.  The command's exit code is 2."""


class ConfigError(RankingError):
    """A config that cannot be used; the message starts with the path of the key."""


class DataError(RankingError):
    """Input data that cannot be used; the message names the file, the place in it and the reason."""


class PushError(RankingError):
    """A push that did not happen; nothing became visible at the destination, which the message names."""


class PushRefused(PushError):
    """A push that did not happen because of the model itself, whatever the destination is like."""

    def __init__(self, message: str, kind: str = "samples"):
        """kind: "no model", "rolled back", "contract" (it breaks clients), "samples" (not loaded, or wrong answers)."""
        super().__init__(message)
        self.kind = kind


class GroupOrderError(DataError):
    """Input said to be grouped in which a group comes back; it can be sorted, or grouped by shuffle."""
