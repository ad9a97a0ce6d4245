"""The distribution feeder: networks, base load and power flow.

- :mod:`~evgrid.feeder.networks`: feeders by name or from a pandapower file
- :mod:`~evgrid.feeder.grid`: a feeder as arrays; elements that can't be represented are refused
- :mod:`~evgrid.feeder.topology`, :mod:`~evgrid.feeder.reduction`: connectivity; exact reduction to fewer
  nodes
- :mod:`~evgrid.feeder.opendss`: feeders from OpenDSS files
- :mod:`~evgrid.feeder.solvers`: z-bus, power-grid-model, pandapower and OpenDSS behind one interface
- :mod:`~evgrid.feeder.base_load`: the load without EVs
- :mod:`~evgrid.feeder.voltage_regulators`, :mod:`~evgrid.feeder.inverters`: devices that respond to the
  voltage
- :mod:`~evgrid.feeder.transformer_ageing`: hot spot and loss of life of the transformers
- :mod:`~evgrid.feeder.model`: the model behind the federate
"""
