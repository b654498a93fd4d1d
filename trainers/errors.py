"""What a user can set right once training has begun."""


class TrainingError(ValueError):
    """Options, data or verdicts that an algorithm cannot go on with; the text says what to change.

    Any other ValueError of a running algorithm is a bug in it.
    """
