"""The bulk system: frequency, regulation signals and products, performance scores, revenue.

============  ===================================================================================
``settings``  the settings of a scenario
``kernels``   the load-frequency equations and the sliding correlation: arrays in, arrays out
``area``      one control area: swing, governor, turbine and AGC, fed back into by the fleet
``series``    values over time from files: frequency, regulation, prices, emissions; events
``signals``   synthetic regulation signals with stated statistics
``products``  FCR, FCR-N, FCR-D, Dynamic Containment, aFRR, RegA and RegD as parameter sets
``scores``    performance of a response: PJM's three parts, CAISO's accuracy, or a user's own
``revenue``   its revenue
``model``  the model behind the federate
============  ===================================================================================

Signs: a regulation signal of +1 activates all of the capacity *upward*: more generation, or less
drawn by the fleet. The target of a fleet with capacity C kW about a preferred operating point P0 is
P0 - C times the signal. Activations of products have the same sign.
"""
