/* A controller in the aggregator's place, in C: what evgrid's strategy `tou` does on PG&E's EV2-A.
 *
 *     evgrid ports SCENARIO --federate aggregator --helics .
 *     HELICS=$(python -c "import helics, pathlib; print(pathlib.Path(helics.__file__).parent / 'install')")
 *     gcc -O2 -ffp-contract=off tou_controller.c -o tou_controller -I$HELICS/include -L$HELICS/lib64 -lhelics \
 *         -Wl,-rpath,$HELICS/lib64 -lm
 *     ./tou_controller aggregator.json
 *
 * The file has all names, units and times. An EV charges now if the cheaper hours before its departure do not suffice.
 * Full hours lie on steps, and the chargers report at each (communication.telemetry).
 */

#include <helics/helics.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PLUGGED, P_MAX, TIME_LEFT, TIME_NEEDED, INPUTS };
static const char* const KEYS[INPUTS] = {"fleet/plugged", "fleet/p_max", "fleet/time_left", "fleet/time_needed"};

/* Off-peak, part-peak, peak, by hour of the day. */
static const int PRICE[24] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 1, 1, 1};

/* Slots of one price: their edges in s from the start, and the time before each edge that costs less than now. */
static int slots;
static int* slot_price;
static double *edge_s, *cheaper_s;

static HelicsError error;

static void check(const char* what)
{
    if (error.error_code != 0) {
        fprintf(stderr, "tou_controller: %s: %s\n", what, error.message);
        exit(1);
    }
}

static void make_slots(int hour, double past_the_hour_s, int hours)
{
    slot_price = malloc((size_t)hours * sizeof *slot_price);
    edge_s = malloc(((size_t)hours + 1) * sizeof *edge_s);
    cheaper_s = malloc(((size_t)hours + 1) * sizeof *cheaper_s);
    for (int i = 0; i < hours; ++i) {
        int price = PRICE[(hour + i) % 24];
        if (slots == 0 || price != slot_price[slots - 1]) {
            edge_s[slots] = 3600.0 * i - past_the_hour_s;
            slot_price[slots++] = price;
        }
    }
    edge_s[slots] = 3600.0 * hours - past_the_hour_s;
}

static int slot_at(double time_s)
{
    int slot = 0;
    while (slot + 1 < slots && edge_s[slot + 1] <= time_s) {
        ++slot;
    }
    return slot;
}

/* Time in cheaper slots before a time. */
static double cheaper_before(double time_s)
{
    if (time_s >= edge_s[slots]) {
        return cheaper_s[slots];
    }
    int slot = slot_at(time_s);
    double share = (cheaper_s[slot + 1] - cheaper_s[slot]) / (edge_s[slot + 1] - edge_s[slot]);
    return share * (time_s - edge_s[slot]) + cheaper_s[slot];
}

int main(int count, char** arguments)
{
    if (count != 2) {
        fprintf(stderr, "usage: tou_controller aggregator.json\n");
        return 2;
    }
    error = helicsErrorInitialize();
    HelicsFederate federate = helicsCreateCombinationFederateFromConfig(arguments[1], &error);
    check(arguments[1]);
    HelicsEndpoint setpoint = helicsFederateGetEndpoint(federate, "aggregator/setpoint", &error);
    HelicsInput input[INPUTS];
    double* value[INPUTS];
    int evs = 0;
    for (int i = 0; i < INPUTS; ++i) {
        input[i] = helicsFederateGetInputByTarget(federate, KEYS[i], &error);
        check(KEYS[i]);
        evs = helicsInputGetVectorSize(input[i]); /* of its default, until a value arrives */
        value[i] = malloc((size_t)evs * sizeof(double));
    }
    double* power_kw = malloc((size_t)evs * sizeof(double));
    double period_s = helicsFederateGetTimeProperty(federate, HELICS_PROPERTY_TIME_PERIOD, &error);
    int steps = atoi(helicsFederateGetTag(federate, "steps", &error));
    int hour = 0, minute = 0, second = 0;
    sscanf(helicsFederateGetTag(federate, "start", &error), "%*d-%*d-%*dT%d:%d:%d", &hour, &minute, &second);
    check("tags");
    make_slots(hour, 60.0 * minute + second, (int)ceil(steps * period_s / 3600.0) + 169);

    helicsFederateEnterExecutingMode(federate, &error);
    for (int step = 0; step < steps && error.error_code == 0; ++step) {
        helicsFederateRequestNextStep(federate, &error);
        for (int i = 0; i < INPUTS; ++i) {
            helicsInputGetVector(input[i], value[i], evs, NULL, &error);
        }
        double now_s = step * period_s;
        int now = slot_at(now_s);
        cheaper_s[0] = 0.0;
        for (int i = 0; i < slots; ++i) {
            double length_s = slot_price[i] < slot_price[now] ? edge_s[i + 1] - edge_s[i] : 0.0;
            cheaper_s[i + 1] = cheaper_s[i] + length_s;
        }
        for (int ev = 0; ev < evs; ++ev) {
            double later_s = cheaper_before(now_s + value[TIME_LEFT][ev]) - cheaper_before(now_s);
            double share = (value[TIME_NEEDED][ev] - later_s) / period_s;
            double wanted_kw = share >= 1.0 ? INFINITY : share > 0.0 ? share * value[P_MAX][ev] : 0.0;
            power_kw[ev] = value[PLUGGED][ev] > 0.5 ? wanted_kw : 0.0; /* infinite: as fast as the EV can */
        }
        helicsEndpointSendBytes(setpoint, power_kw, evs * (int)sizeof(double), &error);
    }
    check("the run");
    helicsFederateRequestTime(federate, 2 * steps * period_s, &error); /* it stays until all have ended */
    helicsFederateDestroy(federate);
    helicsCloseLibrary();
    return 0;
}
