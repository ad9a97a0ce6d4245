"""What an inverter does by itself: voltage and frequency functions of EVSEs and of PV inverters.

``settings`` is what a scenario says, ``kernels`` what runs every tick, ``reference`` the plain-Python
twin that the kernels are checked against.
"""
