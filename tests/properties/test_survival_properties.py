"""Survival of an outage: the kernel against its plain twin, and what holds whatever is drawn."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import survival as twin
from tests.support.survival import sites_of

from evgrid.sites.survival import survival_hours

SLOTS, HORIZON_H = 8, 30.0
kw = st.floats(0, 6).map(lambda value: round(value, 2))
kwh = st.floats(0, 20).map(lambda value: round(value, 2))


@st.composite
def stores(draw):
    """A stationary battery, or an EV with up to three stays."""
    whole = {
        "floor_kwh": draw(st.sampled_from([0.0, 2.0])), "capacity_kwh": draw(st.floats(3, 20)),
        "charge_kw": draw(kw), "discharge_kw": draw(kw), "charge_b": draw(st.sampled_from([0.0, 0.2])),
        "discharge_b": draw(st.sampled_from([0.0, 0.1])), "standby_kw": draw(st.sampled_from([0.0, 0.1])),
        "rank": draw(st.sampled_from([0.0, 1.0])), "least_kwh": 1.0,
    }  # fmt: skip
    number = draw(st.integers(0, 3))
    if number == 0:
        return [whole], [draw(kwh)] * SLOTS
    edges = sorted(draw(st.sets(st.integers(0, 4 * SLOTS), min_size=2 * number, max_size=2 * number)))
    stays = [
        {
            **whole, "arrival_h": edges[2 * i] / 4, "departure_h": edges[2 * i + 1] / 4,
            "arrival_kwh": draw(kwh), "drive_kwh": draw(st.sampled_from([np.nan, 0.0, 5.0])),
        }
        for i in range(number)
    ]  # fmt: skip
    return stays, [draw(kwh) for _ in range(SLOTS)]


@st.composite
def sites(draw):
    """One site: load, PV, stores and their energy in normal times, generator."""
    load, pv = ([draw(kw) for _ in range(SLOTS)] for _ in range(2))
    generator = {"kw": draw(st.sampled_from([0.0, 2.0])), "fuel": draw(kwh), "fuel_per_kwh": 1.0,
                 "fuel_per_h": draw(st.sampled_from([0.0, 0.3])),
                 "turndown": draw(st.sampled_from([0.0, 0.3]))}  # fmt: skip
    return load, pv, draw(st.lists(stores(), max_size=3)), generator


def hours_of(drawn, **options):
    """Of several sites, (start, site)."""
    load, pv, units, generators = zip(*drawn, strict=True)
    table = sites_of(load, pv, [[stays for stays, _ in own] for own in units], generators)
    energy = np.array([row for own in units for _, row in own]).reshape(-1, SLOTS)
    return survival_hours(table, energy, horizon_h=HORIZON_H, **options)


@given(sites(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_kernel_is_its_twin(drawn, options):
    load, pv, units, generator = drawn
    plain = [twin.Store([twin.Stay(**stay) for stay in stays], energy) for stays, energy in units]
    machine = twin.Generator(**generator)
    expected = [
        twin.hours(start, 1.0, load, pv, plain, machine, HORIZON_H, *options) for start in range(SLOTS)
    ]
    names = ("pv_forms", "evs_stay", "generator_last")
    hours = hours_of([drawn], **dict(zip(names, options, strict=True)))
    np.testing.assert_allclose(hours[:, 0], expected, rtol=1e-5, atol=1e-5)


@given(st.lists(sites(), min_size=2, max_size=3), st.sampled_from(["exact", "reopt"]))
@settings(max_examples=50)
def test_order_of_sites_and_starts_is_irrelevant(drawn, rule):
    whole = hours_of(drawn, rule=rule)
    np.testing.assert_array_equal(hours_of(drawn[::-1], rule=rule), whole[:, ::-1])
    starts = np.array([5, 0, 3])
    np.testing.assert_array_equal(hours_of(drawn, rule=rule, starts=starts), whole[starts])


@given(sites(), st.sampled_from(["exact", "reopt"]), st.floats(0.1, 3))
@settings(max_examples=50)
def test_more_load_is_not_served_longer(drawn, rule, more_kw):
    load, pv, units, generator = drawn
    after = hours_of(
        [([each + more_kw for each in load], pv, units, {**generator, "turndown": 0.0})], rule=rule
    )
    before = hours_of([(load, pv, units, {**generator, "turndown": 0.0})], rule=rule)
    assert (after <= before + 1e-4).all()


@given(sites(), st.sampled_from(["exact", "reopt"]), st.floats(0.1, 9))
@settings(max_examples=50)
def test_a_battery_more_does_not_shorten_it(drawn, rule, more_kwh):
    load, pv, units, generator = drawn
    battery = [{"capacity_kwh": more_kwh, "charge_kw": 3.0, "discharge_kw": 3.0, "rank": 2.0}]
    after = hours_of([(load, pv, [*units, (battery, [more_kwh] * SLOTS)], generator)], rule=rule)
    assert (after >= hours_of([drawn], rule=rule) - 1e-4).all()


@given(sites(), st.sampled_from(["exact", "reopt"]))
@settings(max_examples=50)
def test_what_cannot_be_met_at_once_has_0_hours(drawn, rule):
    load, pv, units, generator = drawn
    able = sum(max((stay["discharge_kw"] for stay in stays), default=0.0) for stays, _ in units)
    able += generator["kw"] + np.array(pv)
    hours = hours_of([drawn], rule=rule, pv_forms=True)[:, 0]
    assert (hours[np.array(load) > able + 1e-3] == 0).all()


@given(sites())
@settings(max_examples=50)
def test_rules_agree_where_no_store_is_used(drawn):
    load, pv, _, _ = drawn
    bare = (load, pv, [], {})
    np.testing.assert_allclose(hours_of([bare], pv_forms=True), hours_of([bare], rule="reopt"), atol=1e-5)
