"""ON WHAT it runs: devices, threads, locks on GPUs, memory for results, progress."""
