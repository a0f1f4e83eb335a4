"""What is trained: the stages after the cut, and the head."""
