"""WHICH IMAGES: what the user passed, its digest, its pixels, the square that a network sees."""
