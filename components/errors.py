"""The errors that tfx-ranking raises, and the helpers that word their messages.

A caller can tell by the class whether the config, the data, a command's option or the destination is at fault.
"""

import difflib
from collections.abc import Iterable


class RankingError(ValueError):
    """Base of all errors that tfx-ranking raises; the message says what is wrong, why, and what to do next."""


class UsageError(RankingError):
    """A command's option has a wrong value; the message names the option.  The command's exit code is 2."""


class ConfigError(RankingError):
    """A config that cannot be used; the message starts with the path of the key."""


class DataError(RankingError):
    """Input data that cannot be used; the message names the file, the position in it and the reason."""


class PushError(RankingError):
    """A push failed; nothing became visible at the destination, which the message names."""


class PushRefused(PushError):
    """A push failed because of the model itself, whatever the state of the destination."""

    def __init__(self, message: str, kind: str = "samples"):
        """kind: "no model", "rolled back", "contract" (it breaks clients), "samples" (not loaded, or wrong answers)."""
        super().__init__(message)
        self.kind = kind


class GroupOrderError(DataError):
    """The input is declared as grouped, but a group's rows stand apart; sort the input, or group it by shuffle."""


class Refused(ConfigError):
    """One value of the config is wrong.

    key: the path below the section that is checked, as in "splits.train"; "" for the checked value itself.
    message: what was expected and what came, without a full stop.  While a config is loaded, `config.parse` completes
    the path and raises ConfigError.
    """

    def __init__(self, key: str, message: str):
        super().__init__(as_sentence(f"{key}: {message}" if key else message))
        self.key, self.message = key, message


def did_you_mean(word: str, known: Iterable[str], rest: str = "") -> str:
    """The nearest known name, as the end of a message; "" when no name is near.

    rest: what followed the word, to be repeated after the name.

    >>> did_you_mean("lable", ["label", "weight"])
    "; did you mean 'label'?"
    """
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1) or difflib.get_close_matches(word.lower(), names, n=1)
    return f"; did you mean {close[0] + rest!r}?" if close else ""


def as_sentence(message: object) -> str:
    """A message with a full stop at its end, where it has none.

    >>> as_sentence("expected 1; got 0"), as_sentence("did you mean 'label'?")
    ('expected 1; got 0.', "did you mean 'label'?")
    """
    return str(message) if str(message).endswith((".", "?")) else f"{message}."
