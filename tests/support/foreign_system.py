"""A program in the system's place, in plain HELICS, that does what a fault's name says at its third step.

foreign_system.py HOST PORT PERIOD_S OFFSET_S STEPS FAULT
"""

import os
import signal
import sys
import time

import helics as h

host, port, period_s, offset_s, steps, fault = sys.argv[1:]
name = "sistem" if fault == "name" else "system"
if fault == "late":
    time.sleep(3.0)
info = h.helicsCreateFederateInfo()
info.core_type = "zmq"
info.core_init = f"--federates=1 --broker={host} --brokerport={port} --networktimeout=30s"
h.helicsFederateInfoSetTimeProperty(
    info, h.HELICS_PROPERTY_TIME_PERIOD, float(period_s) * (0.7 if fault == "period" else 1.0)
)
h.helicsFederateInfoSetTimeProperty(
    info, h.HELICS_PROPERTY_TIME_OFFSET, float(offset_s) + (0.5 if fault == "offset" else 0.0)
)
h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
h.helicsFederateInfoSetIntegerProperty(info, h.HELICS_PROPERTY_INT_LOG_LEVEL, h.HELICS_LOG_LEVEL_NO_PRINT)
federate = h.helicsCreateValueFederate(name, info)
key = "system/frequenzy" if fault == "key" else "system/frequency"
kind = h.HELICS_DATA_TYPE_STRING if fault == "type" else h.HELICS_DATA_TYPE_VECTOR
frequency = h.helicsFederateRegisterGlobalPublication(federate, key, kind, "kHz" if fault == "unit" else "Hz")
if fault == "input":
    taken = h.helicsFederateRegisterInput(federate, "load", h.HELICS_DATA_TYPE_VECTOR, "W")
    h.helicsInputAddTarget(taken, "fleet/p")
if fault == "subscription":
    h.helicsFederateRegisterSubscription(federate, "fleet/p", "W")
h.helicsFederateEnterExecutingMode(federate)
try:
    for step in range(int(steps)):
        if fault == "shifted":
            h.helicsFederateRequestTime(federate, (step + 1) * float(period_s))
        else:
            h.helicsFederateRequestNextStep(federate)
        at = fault if step == 2 else ""
        if at == "raise":
            raise ValueError("the turbine is missing")
        if at == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if at == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if at == "leave":
            break
        if at == "exit":
            os._exit(0)
        if at == "stall":
            time.sleep(1000.0)
        if at == "silent":
            continue
        values = [60.0 + step] * (3 if at == "length" else 2)
        if at == "nan":
            values[1] = float("nan")
        if fault == "twice":
            h.helicsPublicationPublishVector(frequency, [0.0, 0.0])
        if kind == h.HELICS_DATA_TYPE_VECTOR:
            h.helicsPublicationPublishVector(frequency, values)
    else:
        h.helicsFederateRequestTime(federate, h.HELICS_TIME_MAXTIME)
except ValueError as error:
    h.helicsFederateGlobalError(federate, 7, f"my system: {error}")
h.helicsFederateDestroy(federate)
