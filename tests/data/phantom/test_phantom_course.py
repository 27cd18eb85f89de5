"""The synthetic patients: how often what is found, and how it goes on."""

from collections import Counter
from itertools import combinations, pairwise

import pytest

from rrg.data.prepare.phantom.patient import studies
from rrg.data.prepare.phantom.placing import conflict
from rrg.data.prepare.phantom.truth import PATHOLOGIES, truth_labels


@pytest.fixture(scope="module")
def patients():
    return [list(studies(23, number, 320)) for number in range(900)]


def test_prevalences(patients):
    truths = [truth for visits in patients for truth in visits]
    present = Counter(name for truth in truths for name, value in truth_labels(truth).items() if value == 1)
    share = {name: count / len(truths) for name, count in present.items()}
    assert 0.20 < share["No Finding"] < 0.30
    assert all(0.09 < share[name] < 0.30 for name in PATHOLOGIES), share
    assert 0.2 < share["Support Devices"] < 0.45


def test_doubt_is_rare_and_never_alone_in_its_kind(patients):
    truths = [truth for visits in patients for truth in visits]
    doubtful = [truth for truth in truths if any(not finding.certain for finding in truth.findings)]
    assert 0 < len(doubtful) < 0.03 * len(truths)
    assert all(sum(not finding.certain for finding in truth.findings) == 1 for truth in doubtful)


def test_at_most_four_findings_that_do_not_hide_one_another(patients):
    for visits in patients:
        for truth in visits:
            names = [finding.name for finding in truth.findings]
            assert len(names) == len(set(names)) <= 4
            assert not any(conflict(a, [b]) for a, b in combinations(truth.findings, 2)), truth.findings
            assert len({device.kind for device in truth.devices}) == len(truth.devices)


def test_studies_of_a_patient_are_dated_in_order_and_evolve(patients):
    lasting = 0
    for visits in patients:
        dates = [truth.date for truth in visits]
        assert dates == sorted(set(dates))
        assert len({truth.patient for truth in visits}) == len({truth.split for truth in visits}) == 1
        for before, after in pairwise(visits):
            lasting += len({f.seed for f in before.findings} & {f.seed for f in after.findings})
    assert lasting > 200


def test_fewer_visits_are_the_first_visits(patients):
    for number, visits in enumerate(patients[:50]):
        assert list(studies(23, number, 320, most=1)) == visits[:1]


def test_a_tube_is_seen_on_portable_films_only(patients):
    for visits in patients:
        for truth in visits:
            if any(device.kind == "tube" for device in truth.devices):
                assert [film.view for film in truth.films] == ["AP"]
