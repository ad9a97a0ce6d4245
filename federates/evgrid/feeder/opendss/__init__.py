"""Feeders from OpenDSS files: reading them (script, engine), their tables, and the engine as a solver."""
