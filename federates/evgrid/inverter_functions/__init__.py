"""Voltage and frequency functions that EVSEs and PV inverters follow by themselves."""
