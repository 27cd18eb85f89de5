"""The gallery of a recipe that reads priors shows their films behind the study's own."""

from rrg.view.films import Films
from tests.damage import damage
from tests.patients import study_id, write_patients


def test_films_of_the_prior_follow_and_say_when(tmp_path):
    shards = write_patients(tmp_path, (2, 1, 1))
    films, plain = Films(str(shards), "train", prior=True), Films(str(shards), "train")
    assert [film.view for film in films.of(study_id(0, 0))] == ["lateral", "pa"]
    assert [film.view for film in films.of(study_id(0, 1))] == ["ap", "lateral, 0.25 days before", "pa, 0.25 days before"]
    assert [film.view for film in films.of(study_id(0, 2))] == ["", "ap axial", "ll", "ap, 40 days before"]
    assert plain.of(study_id(0, 1)) == films.of(study_id(0, 1))[:1]
    damage(shards, f"{study_id(0, 1)}.0.jpg")
    assert len(films.of(study_id(0, 2))) == 3 and films.damaged == [study_id(0, 1)]
