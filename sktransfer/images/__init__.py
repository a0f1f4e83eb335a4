"""Which images: what the user passed, its digest, its pixels, the network's square."""
