"""WHAT IS TRAINED: the stages after the cut, and the head."""
