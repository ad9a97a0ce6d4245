"""The distribution feeder: networks, base load and power flow.

- :mod:`~evgrid.feeder.networks`: feeders by name or from a pandapower file
- :mod:`~evgrid.feeder.grid`: a feeder as arrays; what is not represented is refused
- :mod:`~evgrid.feeder.topology`, :mod:`~evgrid.feeder.reduction`: what hangs on what; fewer nodes
- :mod:`~evgrid.feeder.solvers`: power-grid-model and pandapower behind one interface
- :mod:`~evgrid.feeder.base_load`: the load without EVs
- :mod:`~evgrid.feeder.voltage_regulators`, :mod:`~evgrid.feeder.inverters`: what answers to the voltage
- :mod:`~evgrid.feeder.transformer_ageing`: hot spot and loss of life of the transformers
- :mod:`~evgrid.feeder.model`: the model behind the federate
"""
