"""Plain-Python twins of the kernels: slow, and written to be read."""
