"""The errors a user may meet: each message is one sentence that says what is wrong and what to do."""


class TTDError(Exception):
    """Root of every error that this package raises on purpose; the command line prints it and exits with 2."""


class InputError(TTDError):
    """An image, caption, word, option or file that cannot be used as given."""


class ModelError(TTDError):
    """A model, checkpoint or adapter that is unknown, missing, damaged or does not fit."""


class OutOfMemory(TTDError):
    """The device's memory was not enough; the message says what to lower."""


class MissingExtra(TTDError):
    """An optional dependency, or its data, that is not installed; the message names the command that does."""


def missing_extra(extra: str, need: str) -> MissingExtra:
    """The error for an optional dependency, with the command that installs it from a clone.

    Args:
        extra: its name in `pyproject.toml`.
        need: what needs what, as the beginning of the sentence.
    """
    return MissingExtra(f"{need}: run `pip install -e '.[{extra}]' -c constraints.txt` in the clone of ttd")
