"""Runs: one scenario, batches of them, and the processes in which they run."""
