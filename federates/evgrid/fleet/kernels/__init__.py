"""How the EVs charge and discharge: kernels, of arrays and numbers only.

The laws of battery and charger are in :mod:`evgrid.battery`.

=====================  =====================================================================================
:mod:`.records`        the tables and groups of arrays that kernels take
:mod:`.lanes`          where the state of the EVs lies
:mod:`.one_ev`         one EV over a time in full detail
:mod:`.steady`         blocks of EVs in whose tick nothing happens, many EVs at once
:mod:`.basic_step`     EVs that follow their set-points within battery and EVSE, and nothing else
:mod:`.detailed_step`  the EVs of a tick in full detail
:mod:`.step`           a tick of the whole fleet: arrivals, basic or detailed step, sums, departures
:mod:`.sessions`       how sessions begin and end
:mod:`.slots`          where the power of the EVs goes
:mod:`.reports`        what chargers report, and what EVs can offer
:mod:`.envelope`       what EVs can do over a horizon
=====================  =====================================================================================

Positive power is drawn from the grid.
"""
