"""Errors during training that a user can fix."""


class TrainingError(ValueError):
    """Options, data or verdicts that an algorithm cannot train on; the message says what to change.

    Any other ValueError of a running algorithm is a bug in it.
    """
