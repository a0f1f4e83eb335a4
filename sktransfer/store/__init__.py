"""WHAT IS KEPT: rows by key, on disk, shared by all processes of a user."""
