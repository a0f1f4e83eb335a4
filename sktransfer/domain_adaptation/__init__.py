"""Domain adaptation: from labelled images of one kind to unlabelled images of another."""

__all__: list[str] = []
