"""Batteries behind chargers and inverters, shared by the fleet and by the sites behind the meter.

================  ==========================================================================================
:mod:`.records`   the constants of a battery and its charger, and charging curves
:mod:`.laws`      each law of battery and charger once: equation, unit, source
:mod:`.charging`  one battery over a time, in closed form; the departure guard; charging curves
================  ==========================================================================================

Positive power is drawn from the grid.
"""
