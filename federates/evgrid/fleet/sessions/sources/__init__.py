"""Sampled sources of sessions, a file each."""
