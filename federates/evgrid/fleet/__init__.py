"""The EVs: when they are plugged in, and how they charge and discharge."""
