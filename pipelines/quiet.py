"""Libraries that keep their remarks to themselves, for commands that print what was asked for alone."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_imports(what: str = "TensorFlow, about 10 s") -> Iterator[None]:
    """TensorFlow and what it imports warn about the machine, the Python version and so on; nobody asked here.

    what: is loaded and takes how long, said on standard error where it is not loaded yet.
    """
    if "tensorflow" not in sys.modules:
        say_loading(what)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings(), held_back():  # TensorFlow 2.21 writes before it reads its own log level
        warnings.simplefilter("ignore")
        yield


def say_loading(what: str = "TensorFlow and TFX, about 20 s") -> None:
    """One line on standard error: what makes the command wait."""
    print(f"loading {what} ...", file=sys.stderr, flush=True)


@contextlib.contextmanager
def held_back(of_a_failure: bool = False) -> Iterator[None]:
    """Takes away what native code writes to standard error.  of_a_failure: also where the block raises."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        shown = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            if not of_a_failure:
                said.seek(0)
                os.write(shown, said.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
