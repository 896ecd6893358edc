"""Scores of clusters, and of the classes they are named for, against the true classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn import metrics

from mnist_kmeans_mlx.arrays import as_numpy


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one labeled set of rows.

    Attributes
    ----------
    accuracy : float
        Share of rows whose predicted class is the true one.
    homogeneity, completeness, v_measure : float
        Whether each cluster holds one class, each class one cluster, and their harmonic mean.
    nmi, ari : float
        Normalised mutual information and adjusted Rand index of clusters and classes.
    matched_accuracy : float
        Accuracy if each class may claim one cluster only and the best matching is taken.
    classes : ndarray of shape (n_classes,)
        True and predicted classes in ascending order.
    confusion : ndarray of shape (n_classes, n_classes), int
        Rows of each true class (rows) by predicted class (columns).
    per_class_accuracy : dict
        For each class that occurs, the share of its rows that are recognised.
    missing : list
        Classes that occur but are never predicted: no cluster stands for them.
    """

    accuracy: float
    homogeneity: float
    completeness: float
    v_measure: float
    nmi: float
    ari: float
    matched_accuracy: float
    classes: npt.NDArray[Any] = field(repr=False)
    confusion: npt.NDArray[np.intp] = field(repr=False)
    per_class_accuracy: dict[Any, float] = field(repr=False)
    missing: list[Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python numbers and lists, ready for JSON."""
        return {
            "accuracy": self.accuracy,
            "homogeneity": self.homogeneity,
            "completeness": self.completeness,
            "v_measure": self.v_measure,
            "nmi": self.nmi,
            "ari": self.ari,
            "matched_accuracy": self.matched_accuracy,
            "classes": self.classes.tolist(),
            "confusion": self.confusion.tolist(),
            "per_class_accuracy": {str(c): a for c, a in self.per_class_accuracy.items()},
            "missing": list(self.missing),
        }


def score_labels(y_true: Any, clusters: Any, y_pred: Any) -> Scores:
    """Compare clusters and predicted classes with the truth.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class of each row.
    clusters : array-like of shape (n_samples,)
        Cluster of each row.
    y_pred : array-like of shape (n_samples,)
        Class predicted for each row.

    Returns
    -------
    Scores

    Raises
    ------
    ValueError
        If the three are not equally long, or empty.

    Examples
    --------
    >>> scores = score_labels([0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 1, 1])
    >>> scores.accuracy, scores.matched_accuracy, scores.missing
    (1.0, 0.75, [])
    """
    y_true, clusters, y_pred = (np.asarray(as_numpy(y)) for y in (y_true, clusters, y_pred))
    if not len(y_true) == len(clusters) == len(y_pred):
        raise ValueError(
            f"y_true, clusters and y_pred have {len(y_true)}, {len(clusters)} and {len(y_pred)} "
            "entries: pass one of each per row."
        )
    if len(y_true) == 0:
        raise ValueError("There are no rows to score.")
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(
        y_true, clusters
    )
    contingency = metrics.cluster.contingency_matrix(y_true, clusters)
    matched = contingency[linear_sum_assignment(contingency, maximize=True)].sum()
    classes = np.unique(np.concatenate([y_true, y_pred]))
    confusion = metrics.confusion_matrix(y_true, y_pred, labels=classes)
    occurring, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return Scores(
        accuracy=float(np.mean(y_true == y_pred)),
        homogeneity=float(homogeneity),
        completeness=float(completeness),
        v_measure=float(v_measure),
        nmi=float(metrics.normalized_mutual_info_score(y_true, clusters)),
        ari=float(metrics.adjusted_rand_score(y_true, clusters)),
        matched_accuracy=float(matched / len(y_true)),
        classes=classes,
        confusion=confusion,
        per_class_accuracy={
            c: float(confusion[i, i] / occurring[i])
            for i, c in enumerate(classes.tolist())
            if occurring[i]
        },
        missing=[c for i, c in enumerate(classes.tolist()) if occurring[i] and not predicted[i]],
    )
