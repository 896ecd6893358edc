"""What is used of scikit-learn's private parts: none more than this, and each as it is used."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans as SklearnKMeans

from mnist_kmeans_mlx import KMeans

ROOT = Path(__file__).parent.parent
ANY = inspect.Parameter.empty

# Name -> the arguments that it must take; ANY stands for a value.
PRIVATE = {
    "mnist_kmeans_mlx": {
        "sklearn.base._fit_context": ((), {"prefer_skip_nested_validation": ANY}),
        "sklearn.utils._openmp_helpers._openmp_effective_n_threads": None,  # compiled: no signature
        "sklearn.utils._param_validation.Interval": ((ANY, ANY, ANY), {"closed": ANY}),
        "sklearn.utils._param_validation.StrOptions": ((ANY,), {}),
        "sklearn.utils._param_validation.validate_params": (
            (ANY,),
            {"prefer_skip_nested_validation": ANY},
        ),
        "sklearn.utils.validation._check_feature_names": ((ANY, ANY), {"reset": ANY}),
        "sklearn.utils.validation._check_n_features": ((ANY, ANY), {"reset": ANY}),
        "sklearn.utils.validation._check_sample_weight": ((ANY, ANY), {"dtype": ANY}),
        "sklearn.utils.validation._is_arraylike_not_scalar": ((ANY,), {}),
    },
    "scripts": {},
    "tests": {
        "sklearn.utils._test_common.instance_generator._get_expected_failed_checks": ((ANY,), {}),
    },
}


def private_names(folder):
    """Dotted names below sklearn with a part that begins with an underscore, as imported or used.

    The documented ``__version__`` and ``__file__`` are none.
    """
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute):
                found.add(ast.unparse(node))
    return {name for name in found if name.startswith("sklearn.") and is_private(name)}


def is_private(name):
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


@pytest.mark.parametrize("folder", PRIVATE)
def test_the_private_names_in_use_are_these(folder):
    assert private_names(ROOT / folder) == set(PRIVATE[folder])


@pytest.mark.parametrize(
    ("name", "call"), [item for names in PRIVATE.values() for item in names.items()], ids=str
)
def test_a_private_name_is_there_and_takes_what_is_given(name, call):
    module, _, attribute = name.rpartition(".")
    found = getattr(import_module(module), attribute)
    if call is None:
        assert found() >= 1
    else:
        inspect.signature(found).bind(*call[0], **call[1])


def test_private_attributes_that_scikit_learn_reads_or_offers(device):
    """What ours inherit, and what `to_sklearn` sets: each is on scikit-learn's own KMeans."""
    rows = np.arange(20.0).reshape(10, 2)
    theirs = SklearnKMeans(2, random_state=0).fit(rows)
    assert callable(theirs._validate_params)
    assert {"n_clusters", "init"} <= set(theirs._parameter_constraints)
    ours = KMeans(2, random_state=0, device=device).fit(rows).to_sklearn()
    assert {name for name in vars(ours) if name.startswith("_")} <= set(vars(theirs))
    assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())
