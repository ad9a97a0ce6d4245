// A CSMS by ocpp-rpc, whose strict mode checks every message of both sides by schemas of its own.
// node csms.js VERSION: prints its port; limits each transaction to 3 kW at its first meter value, and discharges that of
// "two" by 2 kW in OCPP 2.1; at the end of its input prints what it has been told as JSON.
const { RPCServer, createValidator } = require("ocpp-rpc");

const version = process.argv[2];
const old = version === "1.6";
// it looks for the names that it gives to the schemas of 1.6 and 2.0.1
const schemas = require("ocpp-rpc/lib/schemas/ocpp2_1.json").map((schema) => ({
  ...schema, $id: schema.$id.replace(/Request$/, ".req").replace(/Response$/, ".conf"),
}));
const server = new RPCServer({
  protocols: [`ocpp${version}`], strictMode: true, strictModeValidators: [createValidator("ocpp2.1", schemas)],
});
const told = { bad: [], events: {}, answers: [], actions: {}, schedules: [] };
let transactions = 0;

server.auth((accept, reject, handshake) => {
  if (handshake.identity === "evgrid-clock") reject(404); else accept();
});

server.on("client", (client) => {
  const who = client.identity;
  const count = (method) => { told.actions[method] = (told.actions[method] || 0) + 1; };
  const limited = new Set();
  const bad = (event) => told.bad.push(`${who}: ${event.error}`);
  client.on("badMessage", bad);
  client.on("strictValidationFailure", bad);
  client.handle("BootNotification", () => {
    count("BootNotification");
    return { status: "Accepted", interval: 86400, currentTime: new Date().toISOString() };
  });
  client.handle("StatusNotification", () => { count("StatusNotification"); return {}; });
  client.handle("NotifyEVChargingNeeds", () => { count("NotifyEVChargingNeeds"); return { status: "Processing" }; });

  async function limit(transactionId) {
    if (limited.has(transactionId)) return;
    limited.add(transactionId);
    const discharges = version === "2.1" && who === "two";
    const period = discharges ? { startPeriod: 0, operationMode: "CentralSetpoint", setpoint: -2000 }
      : { startPeriod: 0, limit: 3000 };
    const schedule = { chargingRateUnit: "W", chargingSchedulePeriod: [period] };
    const profile = {
      transactionId, stackLevel: 1, chargingProfilePurpose: "TxProfile", chargingProfileKind: "Relative",
    };
    const request = old
      ? { connectorId: 1, csChargingProfiles: { ...profile, chargingProfileId: 7, chargingSchedule: schedule } }
      : { evseId: 1, chargingProfile: { ...profile, id: 7, chargingSchedule: [{ id: 1, ...schedule }] } };
    told.answers.push((await client.call("SetChargingProfile", request)).status);
    const asked = old ? { connectorId: 1, duration: 60 } : { evseId: 1, duration: 60 };
    const answer = await client.call("GetCompositeSchedule", asked);
    told.schedules.push([who, (old ? answer.chargingSchedule : answer.schedule).chargingSchedulePeriod[0]]);
  }

  client.handle("TransactionEvent", ({ params }) => {
    count("TransactionEvent");
    (told.events[who] ||= []).push(params);
    if (params.eventType === "Updated") setImmediate(() => limit(params.transactionInfo.transactionId));
    return {};
  });
  client.handle("StartTransaction", () => {
    count("StartTransaction");
    return { transactionId: ++transactions, idTagInfo: { status: "Accepted" } };
  });
  client.handle("MeterValues", ({ params }) => {
    count("MeterValues");
    setImmediate(() => limit(params.transactionId));
    return {};
  });
  client.handle("StopTransaction", ({ params }) => {
    count("StopTransaction");
    (told.events[who] ||= []).push(params);
    return {};
  });
});

server.listen(0, "127.0.0.1").then((http) => console.log(http.address().port));
process.stdin.on("end", () => process.stdout.write(JSON.stringify(told), () => process.exit(0))).resume();
