// A charging station by ocpp-rpc, whose strict mode checks every message of both sides by schemas of its own.
// node station.js URL IDENTITY VERSION: charges at what the profiles allow for three simulated minutes of its CSMS's
// clock, and prints what it has counted and been told as JSON.
const { RPCClient, createValidator } = require("ocpp-rpc");

const [url, identity, version] = process.argv.slice(2);
const old = version === "1.6";
// it looks for the names that it gives to the schemas of 1.6 and 2.0.1
const schemas = require("ocpp-rpc/lib/schemas/ocpp2_1.json").map((schema) => ({
  ...schema, $id: schema.$id.replace(/Request$/, ".req").replace(/Response$/, ".conf"),
}));
const client = new RPCClient({
  strictModeValidators: [createValidator("ocpp2.1", schemas)],
  endpoint: url, identity, protocols: [`ocpp${version}`], strictMode: true, reconnect: false,
});
const profiles = new Map();
const seen = { asked: [], limits: [], bad: [] };

client.handle("SetChargingProfile", ({ params }) => {
  const profile = old ? params.csChargingProfiles : params.chargingProfile;
  const schedule = old ? profile.chargingSchedule : profile.chargingSchedule[0];
  const period = schedule.chargingSchedulePeriod[0];
  profiles.set(profile.chargingProfilePurpose, period.limit ?? period.setpoint);
  if (profile.chargingProfilePurpose === "TxProfile") seen.limits.push(period.limit ?? period.setpoint);
  return { status: "Accepted" };
});
client.handle("SetVariables", ({ params }) => ({
  setVariableResult: params.setVariableData.map(({ component, variable }) => ({
    attributeStatus: "Accepted", component, variable,
  })),
}));
client.handle("ChangeConfiguration", () => ({ status: "Accepted" }));
client.handle(({ method }) => { seen.asked.push(method); throw new Error("NotImplemented"); });
client.on("badMessage", (event) => seen.bad.push(String(event.error)));
client.on("strictValidationFailure", (event) => seen.bad.push(String(event.error)));

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let registerWh = 1000, atMs = 0, seqNo = 0, transactionId = "abc-1";

async function now() {
  return Date.parse((await client.call("Heartbeat", {})).currentTime);
}

function meterValue(timeMs, context) {
  const timestamp = new Date(timeMs).toISOString();
  const measurand = "Energy.Active.Import.Register";
  return [{
    timestamp,
    sampledValue: [old ? { value: String(registerWh), measurand, unit: "Wh", context }
      : { value: registerWh, measurand, context, unitOfMeasure: { unit: "Wh" } }],
  }];
}

async function event(eventType, timeMs, triggerReason, context, more = {}) {
  return client.call("TransactionEvent", {
    eventType, triggerReason, timestamp: new Date(timeMs).toISOString(), seqNo: seqNo++,
    transactionInfo: { transactionId }, evse: { id: 1, connectorId: 1 }, meterValue: meterValue(timeMs, context), ...more,
  });
}

async function main() {
  await client.connect();
  await client.call("BootNotification", old
    ? { chargePointVendor: "somebody", chargePointModel: "else" }
    : { reason: "PowerUp", chargingStation: { vendorName: "somebody", model: "else" } });
  while ((atMs = await now()) === Date.parse(process.env.BEGIN)) await sleep(5);  // the CSMS's clock stands
  const stamp = new Date(atMs).toISOString();
  await client.call("StatusNotification", old
    ? { connectorId: 1, errorCode: "NoError", status: "Preparing" }
    : { timestamp: stamp, connectorStatus: "Occupied", evseId: 1, connectorId: 1 });
  if (old) {
    const start = { connectorId: 1, idTag: "tag", meterStart: registerWh, timestamp: stamp };
    transactionId = (await client.call("StartTransaction", start)).transactionId;
  } else {
    await event("Started", atMs, "CablePluggedIn", "Transaction.Begin", { idToken: { idToken: "tag", type: "Local" } });
    await client.call("NotifyEVChargingNeeds", {
      evseId: 1, chargingNeeds: {
        requestedEnergyTransfer: "AC_three_phase", departureTime: new Date(atMs + 3600e3).toISOString(),
        acChargingParameters: { energyAmount: 2000, evMinCurrent: 6, evMaxCurrent: 16, evMaxVoltage: 230 },
      },
    });
  }
  for (const endMs = atMs + 180e3; atMs < endMs;) {
    await sleep(30);
    const timeMs = await now();
    const powerW = profiles.get("TxProfile") ?? profiles.get("TxDefaultProfile") ?? 7400;
    registerWh += powerW * (timeMs - atMs) / 3600e3;
    atMs = timeMs;
    if (old) await client.call("MeterValues", { connectorId: 1, transactionId, meterValue: meterValue(atMs, "Sample.Periodic") });
    else await event("Updated", atMs, "MeterValuePeriodic", "Sample.Periodic");
  }
  registerWh = Math.round(registerWh);  // OCPP 1.6 ends with whole Wh
  if (old) {
    const stop = { transactionId, meterStop: registerWh, timestamp: new Date(atMs).toISOString() };
    await client.call("StopTransaction", stop);
  } else await event("Ended", atMs, "EVDeparted", "Transaction.End");
  console.log(JSON.stringify({ ...seen, countedWh: registerWh - 1000 }));
  await client.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
