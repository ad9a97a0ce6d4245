"""Plans over a horizon: least-cost charging and discharging of a fleet with coupled EVs."""
