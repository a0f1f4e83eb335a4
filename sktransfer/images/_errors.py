"""Why one image can't be read."""


class DecodeError(Exception):
    """One image can't be read; the message is the cause. Callers add its position."""
