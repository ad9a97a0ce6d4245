"""Power of PV from the sun's position and the weather, by pvlib: for sites and for the feeder."""
