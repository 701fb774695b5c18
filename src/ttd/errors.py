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
    """An optional dependency that is not installed; the message names the extra to install."""
