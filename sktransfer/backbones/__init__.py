"""What network: architectures, their stages, and the weights that belong to them."""
