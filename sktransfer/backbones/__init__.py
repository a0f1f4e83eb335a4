"""WHAT NETWORK: architectures, their stages, and the weights that belong to them."""
