"""Films show what the truth says, where it says so."""

from dataclasses import replace

import numpy as np
import pytest

from rrg.data.prepare.phantom.canvas import Canvas, Pose, curve, ellipse, ribbon
from rrg.data.prepare.phantom.film import draw, jpeg
from rrg.data.prepare.phantom.patient import studies
from rrg.data.prepare.phantom.shadows import centre
from rrg.data.prepare.phantom.thorax import dome, lung, sign, wall_x
from rrg.data.prepare.phantom.truth import Device, Film, Finding

UPRIGHT = Film("0", "PA", 150, 128, Pose(), 1.0, 1.0, 0.01, 3)


@pytest.fixture(scope="module")
def healthy():
    truth = next(t for n in range(200) for t in studies(2, n, 128) if not t.findings)
    return replace(truth, devices=())


def film_of(truth, *findings, devices=(), film=UPRIGHT):
    return draw(replace(truth, findings=findings, devices=devices), film).astype(float)


def zone(film, x, y, radius=0.06):
    canvas = Canvas(film.rows, film.columns, film.pose)
    return canvas.fill(ellipse(x, y, radius, radius)) > 0.5


def difference(healthy, finding, x, y, radius=0.06, film=UPRIGHT):
    """How much brighter the finding makes a spot at (x, y), on the finding's side and at the mirrored spot."""
    change = film_of(healthy, finding, film=film) - film_of(healthy, film=film)
    return change[zone(film, x, y, radius)].mean(), change[zone(film, -x, y, radius)].mean()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["Lung Opacity", "Pneumonia", "Consolidation", "Lung Lesion"])
@pytest.mark.parametrize("place", ["upper", "mid", "lower"])
def test_a_lung_finding_is_bright_in_its_zone_and_nowhere_else(healthy, name, side, place):
    finding = Finding(name, side=side, zone=place, kind="mass", measure=4.0, seed=11)
    here, there = difference(healthy, finding, *centre(healthy.patient, side, place), radius=0.10)
    assert here > 25 and abs(there) < 3


@pytest.mark.parametrize("side", ["right", "left"])
def test_fluid_whitens_the_costophrenic_angle(healthy, side):
    x = sign(side) * (healthy.patient.half_width - 0.06)
    shift = [
        difference(healthy, Finding("Pleural Effusion", side=side, grade=grade), x, dome(healthy.patient, side) - up, 0.04)
        for grade, up in (("small", 0.02), ("moderate", 0.20), ("large", 0.48))
    ]
    assert all(here > 40 and abs(there) < 3 for here, there in shift), shift
    above = Finding("Pleural Effusion", side=side, grade="small")
    assert abs(difference(healthy, above, 0.7 * x, -0.3)[0]) < 3


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("grade", ["small", "moderate", "large"])
def test_air_darkens_the_apex(healthy, side, grade):
    x, y = sign(side) * 0.32, healthy.patient.apex + 0.07
    here, there = difference(healthy, Finding("Pneumothorax", side=side, grade=grade), x, y, 0.03)
    assert here < -20 and abs(there) < 3


@pytest.mark.parametrize("side", ["right", "left"])
def test_thick_pleura_is_bright_along_the_wall(healthy, side):
    x = sign(side) * (wall_x(healthy.patient, 0.05) - 0.03)
    plain = difference(healthy, Finding("Pleural Other", side=side, kind="smooth", seed=4), x, 0.05, 0.025)
    chalk = difference(healthy, Finding("Pleural Other", side=side, kind="calcified", seed=4), x, 0.05, 0.08)
    assert plain[0] > 25 and abs(plain[1]) < 3 and chalk[0] > 15


def test_the_heart_grows_with_its_grade(healthy):
    x, y = 0.40, dome(healthy.patient, "left") - 0.14
    ratios = (0.54, 0.61, 0.68)
    shift = [difference(healthy, Finding("Cardiomegaly", measure=ratio), x, y, 0.12)[0] for ratio in ratios]
    assert shift[0] > 10 and shift == sorted(shift)


def test_the_mediastinum_is_wide_and_edema_lies_around_the_hila(healthy):
    for s in (-1, 1):
        assert difference(healthy, Finding("Enlarged Cardiomediastinum", measure=0.31), s * 0.24, -0.45, 0.04)[0] > 40
        grades = [
            difference(healthy, Finding("Edema", grade=g), s * 0.34, -0.05, 0.10)[0] for g in ("mild", "moderate", "severe")
        ]
        assert grades[0] > 25 and grades == sorted(grades)


@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_bands_lie_at_the_base(healthy, side):
    finding = Finding("Atelectasis", side=side, seed=8)
    for one in ("right", "left"):
        here = difference(healthy, finding, sign(one) * 0.44, dome(healthy.patient, one) - 0.12, 0.08)[0]
        assert here > 15 if one in finding.sides else abs(here) < 3


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("kind", "rib"), [("rib", 5.0), ("rib", 8.0), ("clavicle", 0.0)])
def test_a_broken_bone_changes_its_own_side(healthy, side, kind, rib):
    change = np.abs(film_of(healthy, Finding("Fracture", side=side, kind=kind, measure=rib)) - film_of(healthy))
    half = np.arange(UPRIGHT.columns) > UPRIGHT.columns / 2
    own = half if side == "left" else ~half
    assert (change[:, own] > 25).sum() > 60
    assert (change[:, ~own] > 25).sum() < 5


@pytest.mark.parametrize(
    "device", [Device("pacemaker", "left"), Device("catheter", "right"), Device("tube", measure=4), Device("wires")]
)
def test_devices_are_white(healthy, device):
    change = film_of(healthy, devices=(device,)) - film_of(healthy)
    assert (change > 60).sum() > 40


@pytest.mark.parametrize("name", ["Pneumonia", "Consolidation", "Lung Opacity", "Lung Lesion"])
def test_what_is_doubtful_is_faint(healthy, name):
    sure = Finding(name, side="right", zone="mid", kind="mass", measure=4.0, seed=11)
    x, y = centre(healthy.patient, "right", "mid")
    clear, faint = (difference(healthy, replace(sure, certain=c), x, y, 0.10)[0] for c in (True, False))
    assert 5 < faint < 0.75 * clear


@pytest.mark.parametrize(
    "finding", [Finding("Pleural Effusion", side="left", grade="small"), Finding("Cardiomegaly", grade="severe", measure=0.68)]
)
def test_the_lateral_film_shows_it_too(healthy, finding):
    side = replace(UPRIGHT, view="LATERAL")
    assert (film_of(healthy, finding, film=side) - film_of(healthy, film=side) > 25).sum() > 100


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (64, 79), (97, 64), (131, 127), (400, 320)])
@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL"])
def test_awkward_sizes(healthy, rows, columns, view):
    pose = Pose(0.07, 0.93, 0.05, -0.04)
    pixels = draw(healthy, replace(UPRIGHT, rows=rows, columns=columns, view=view, pose=pose))
    assert pixels.shape == (rows, columns) and pixels.dtype == np.uint8
    assert pixels.std() > 25 and jpeg(pixels)[:2] == b"\xff\xd8"


def test_drawing_is_repeatable(healthy):
    assert jpeg(draw(healthy, UPRIGHT)) == jpeg(draw(healthy, UPRIGHT))


def test_findings_follow_the_pose(healthy):
    """A shifted, turned body carries its findings along."""
    film = replace(UPRIGHT, pose=Pose(0.06, 0.95, 0.05, -0.03))
    finding = Finding("Lung Lesion", side="right", zone="mid", kind="mass", measure=4.0, seed=11)
    assert difference(healthy, finding, *centre(healthy.patient, "right", "mid"), film=film)[0] > 40


def test_pixels_and_grid_are_inverse():
    canvas = Canvas(90, 70, Pose(0.1, 0.9, 0.03, -0.02))
    x, y = canvas.grid
    back = canvas.pixels(np.array([[x[40, 20], y[40, 20]]], dtype=np.float64))[0]
    assert back == pytest.approx([20.5, 40.5], abs=1e-3)


@pytest.mark.parametrize("soft", [0.0, 0.01, 0.03, 0.1])
def test_a_filled_shape_has_its_area_whatever_the_blur(soft):
    canvas = Canvas(200, 200, Pose())
    area = canvas.fill(ellipse(0.1, -0.05, 0.4, 0.25, 0.3, points=90), soft=soft).sum() / canvas.scale**2
    assert area == pytest.approx(np.pi * 0.4 * 0.25, rel=0.04 + 0.5 * soft)  # the coarser the cells, the rounder the shape


def test_shapes_off_the_film_leave_nothing():
    canvas = Canvas(64, 64, Pose())
    assert not canvas.fill(ellipse(9, 9, 0.1, 0.1)).any() and not canvas.blob(9, 9, 0.1, 0.1).any() and not canvas.fill().any()


def test_curves_pass_through_their_points_and_lungs_do_not_cross_the_midline(healthy):
    points = [(0.0, 0.0), (1.0, 0.5), (2.0, -0.5)]
    line = curve(points)
    assert all(np.abs(line - point).sum(axis=1).min() < 1e-9 for point in points)
    assert len(ribbon(line, 0.1)) == 2 * len(line)
    assert lung(healthy.patient, "left")[:, 0].min() > 0 > lung(healthy.patient, "right")[:, 0].max()
