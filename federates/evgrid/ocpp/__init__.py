"""OCPP: the fleet as charging stations, and an aggregator as their management system (CSMS).

======================  ================================================================================
``messages``            units, timestamps, and the port sheet's values as fields of messages; of both sides
``schemas``             messages as text, checked against the JSON schemas of the standard; of both sides
``charging_profiles``   charging profiles that are stacked, and what they ask of an EVSE
``station``             one charging station
``stations``            a run whose EVSEs are charging stations
``csms``                a run in which charging stations take the fleet's place
``station_fleet``       the model that does so
``station_state``       a charging station as the CSMS knows it, and what of it can't be true
``books``               energy of stations, transactions and ticks, from registers
``standing``            what a station does without set-points, as charging profiles
``server``              the CSMS's connections
``security``            who may connect
======================  ================================================================================

Messages are dictionaries as on the wire: the data classes of the package ``ocpp`` can't express ``limit_L2``
(its conversion of names drops the underscore). Needs the extra: ``pip install 'evgrid[ocpp]'``.
"""

try:
    import fastjsonschema  # noqa: F401
    import ocpp  # noqa: F401
    import websockets  # noqa: F401
except ImportError:
    raise ImportError(
        "evgrid.ocpp needs the packages ocpp, websockets and fastjsonschema: pip install 'evgrid[ocpp]'"
    ) from None
