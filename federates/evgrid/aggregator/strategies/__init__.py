"""Charging strategies, a module each; see :mod:`evgrid.aggregator.strategy`."""
