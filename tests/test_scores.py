import json
from itertools import permutations

import numpy as np
import pytest
from sklearn import metrics

from mnist_kmeans_mlx.scores import score_labels


@pytest.mark.parametrize("seed", range(5))
def test_scores(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 60)
    clusters = np.where(rng.random(60) < 0.6, truth, rng.integers(0, 4, 60))
    predicted = np.where(rng.random(60) < 0.7, truth, 3)
    scores = score_labels(truth, clusters, predicted)
    assert scores.accuracy == metrics.accuracy_score(truth, predicted)
    assert scores.nmi == pytest.approx(metrics.normalized_mutual_info_score(truth, clusters))
    assert scores.ari == pytest.approx(metrics.adjusted_rand_score(truth, clusters))
    assert scores.v_measure == pytest.approx(metrics.v_measure_score(truth, clusters))
    assert scores.matched_accuracy == max(
        np.mean(np.array(names)[clusters] == truth) for names in permutations(range(4))
    )
    np.testing.assert_array_equal(scores.confusion, metrics.confusion_matrix(truth, predicted))
    recalls = metrics.recall_score(truth, predicted, average=None)
    assert list(scores.per_class_accuracy.values()) == pytest.approx(list(recalls))


def test_missing_classes_are_named():
    scores = score_labels([0, 1, 2, 2], [0, 0, 1, 1], [0, 0, 2, 2])
    assert scores.missing == [1]
    assert scores.per_class_accuracy == {0: 1.0, 1: 0.0, 2: 1.0}


def test_a_predicted_class_that_does_not_occur():
    scores = score_labels([0, 0], [0, 1], [0, 5])
    assert scores.classes.tolist() == [0, 5]
    assert scores.per_class_accuracy == {0: 0.5}
    assert scores.missing == []


def test_plain_numbers():
    plain = score_labels(np.array([0, 1]), np.array([0, 1]), np.array([0, 1])).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["accuracy"] == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(([0, 1], [0], [0, 1]), "2, 1 and 2 entries"), (([], [], []), "no rows")],
)
def test_refuses_what_cannot_be_scored(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        score_labels(*arguments)
