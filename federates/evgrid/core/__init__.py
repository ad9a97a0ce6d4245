"""The base of every other part: models, ports, random streams, compilation, registries, NetCDF files."""
