"""IMAGES TO ROWS: what the store lacks is read, computed and stored."""
