"""Voltage and frequency functions of EVSEs and PV inverters."""
