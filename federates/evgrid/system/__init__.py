"""The bulk system: frequency, regulation signals and products, performance scores, revenue.

==============  =================================================================================
``kernels``     the load-frequency equations and the sliding correlation: arrays in, arrays out
``area``        one control area: swing, governor, turbine and AGC, fed back into by the fleet
``signals``     synthetic regulation signals with stated statistics
``products``    FCR, FCR-N, FCR-D, Dynamic Containment, aFRR, RegA and RegD as parameter sets
``scores``      performance of a response: PJM's three parts, CAISO's accuracy, or a user's own
``revenue``     its revenue
``live``        signals that come from a server during a run
``ven``         OpenADR 3: a virtual end node that polls a VTN, and reports
``der_client``  IEEE 2030.5: a client that reads DERControls
``model``       the model behind the federate
==============  =================================================================================

Signs: a regulation signal of +1 activates all of the capacity *upward*: more generation, or less
drawn by the fleet. The target of a fleet with capacity C kW about a preferred operating point P0 is
P0 - C times the signal. Activations of products have the same sign.
"""
