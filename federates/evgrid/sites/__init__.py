"""Sites: homes, buildings and off-grid loads behind a meter, with their sources and their EVs."""
