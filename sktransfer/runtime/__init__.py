"""How it runs: device, batches, and the store of activations."""
