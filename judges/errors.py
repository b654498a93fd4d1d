"""What a user can set right once a judge is asked."""


class JudgeError(ValueError):
    """A judge that cannot be loaded or asked: its checkpoint, labels, key, endpoint or files; the text says what to
    change.

    Any other ValueError of a judge that answers is a bug in it.
    """
