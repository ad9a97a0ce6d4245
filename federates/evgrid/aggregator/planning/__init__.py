"""Plans over a horizon: what a fleet draws and gives at least cost, with what couples its EVs."""
