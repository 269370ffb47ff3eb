"""What the figures in the README come from. Everything runs on this machine, on loopback, and ends with the run."""
