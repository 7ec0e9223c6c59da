"""The exit codes of `tfx-ranking retrain`, on which scripts may rely."""

import enum


class Exit(enum.IntEnum):
    """How `tfx-ranking retrain` ended.

    To add an exit code, add a member: its number, and its sentence for the command's help.  The outcome's name is the
    member's.  The schedule's history, hooks and JSON take all of it from here.

    >>> Exit.NOTHING_TO_DO.outcome, int(Exit.NOTHING_TO_DO)
    ('nothing to do', 10)
    """

    sentence: str

    PUSHED = 0, "pushed (with --dry-run: would train)"
    NOTHING_TO_DO = 10, "nothing to do: no new data, no reason to train, or the same model came out"
    NOT_BLESSED = 11, "trained, not blessed: the live model stays"
    DATA_REFUSED = 12, "data refused: nothing was trained, the live model stays"
    FAILED = 1, "failed"
    WRONG_USAGE = 2, "wrong usage"  # argparse's own exit code
    INTERRUPTED = 130, "interrupted; the same command continues after the finished steps"

    def __new__(cls, code: int, sentence: str) -> "Exit":
        member = int.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    @property
    def outcome(self) -> str:
        return self.name.lower().replace("_", " ")


def help_text() -> str:
    """The exit codes for the command's help, one a line."""
    return "\n".join(["exit codes:", *(f"  {code.value:<4} {code.sentence}" for code in Exit)])
