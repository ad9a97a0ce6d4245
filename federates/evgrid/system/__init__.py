"""The bulk system: frequency, regulation signals and products, performance scores, revenue.

============  ===================================================================================
``settings``  what a scenario says
``kernels``   the load-frequency equations and the sliding correlation: arrays in, arrays out
``area``      one control area: swing, governor, turbine and AGC, fed back into by the fleet
``series``    values over time from files: frequency, regulation, prices, emissions; events
``signals``   synthetic regulation signals with stated statistics
``products``  FCR, FCR-N, FCR-D, Dynamic Containment, aFRR, RegA and RegD as parameter sets
``scores``    how well a response followed: PJM's three parts, CAISO's accuracy, or a user's own
``revenue``   what it earns
``model``     all of it behind a federate
============  ===================================================================================

Signs: a regulation signal of +1 asks for all of the capacity *upward*: more generation, or less
drawn by the fleet. A fleet with capacity C kW about a preferred operating point P0 is asked to draw
P0 - C times the signal. Activations of products have the same sign.
"""
