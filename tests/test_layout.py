"""The layout: which module may import which, what stays out of a module, what loads when."""

import ast
import inspect
import json
from collections import Counter
from functools import cache
from types import FunctionType

import pytest
from commands import ROOT, run

import mnist_kmeans_mlx

PACKAGE = ROOT / "mnist_kmeans_mlx"

# Imports point down, or sideways if that closes no circle. A new module is placed here first.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"report", "benchmark", "experiment"},
    {
        "datasets", "memory", "answers", "base", "estimator", "minibatch", "bisecting", "functions",
        "progress", "labeling", "scores", "persistence", "checkpoint",
    },
    {"engine"},
    {"distributed"},
    {"device"},
    {"threads", "arrays", "formats", "system"},
]  # fmt: skip
ENGINE_LAYERS = [
    {"engine.restarts"},
    {"engine.lloyd", "engine.minibatch", "engine.seeding.start"},
    {"engine.means", "engine.seeding.parallel"},
    {"engine.nearest"},
    {"engine.ways"},
    {"engine.plain", "engine.host", "engine.mlx", "engine.sparse"},
    {
        "engine.centers",
        "engine.seeding.sampling",
        "engine.metric",
        "engine.sphere",
        "engine.fingerprint",
        "engine.sums",
    },
    {"engine.points"},
    {"engine.exact", "engine.frame", "engine.lattice"},
    {"engine.csr"},
    {"engine.decision", "engine.differences"},
]
# Rooms that know only NumPy, or only MLX.
WAYS = {
    "engine.plain": "mlx",
    "engine.host": "mlx",
    "engine.mlx": "scipy",
    "engine.sparse": "mlx",
}
NOT_IN_ENGINE = {"click", "io", "logging", "os", "pathlib", "rich", "sklearn", "sys", "time"}
# Test files about no single module.
ABOUT_THE_WHOLE = {"browser", "docs", "layout", "notebook", "packaging", "private_names", "readme"}
SLOW_TO_LOAD = {
    "keras", "matplotlib", "mlx", "numpy", "pandas", "polars", "pyarrow", "scipy", "sklearn",
    "tensorflow",
}  # fmt: skip


def module_name(path):
    """``mnist_kmeans_mlx/engine/lloyd.py`` -> ``engine.lloyd``; ``engine`` for its init."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
NAMES = sorted(MODULES.keys() - {""})


@cache
def tree(module):
    return ast.parse(MODULES[module].read_text())


@cache
def imports(module):
    """Absolute dotted names of what a module imports anywhere in its body, with names it takes."""
    package = ["mnist_kmeans_mlx", *module.split(".")]
    if MODULES[module].name != "__init__.py":
        package.pop()
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            found.update(f"{source}.{alias.name}" for alias in node.names)
    return found


@cache
def targets(module):
    """The package's own modules among a module's imports."""
    found = set()
    for name in imports(module):
        top, _, rest = name.partition(".")
        if top != "mnist_kmeans_mlx":
            continue
        while rest and rest not in MODULES:  # mostly `module.name`: drop the name
            rest = rest.rpartition(".")[0]
        found.add(rest)
    return found - {module}


def rank(layers, name):
    for number, layer in enumerate(layers):
        if name in layer or name.rpartition(".")[0] in layer:
            return number
    pytest.fail(f"place {name} in the layers of {__file__}")


def part(module):
    return module.partition(".")[0]


@pytest.mark.parametrize("module", NAMES)
def test_imports_point_one_way(module):
    for target in targets(module) - {""}:
        assert rank(LAYERS, part(module)) <= rank(LAYERS, part(target)), f"{module} -> {target}"
        if part(module) == part(target) == "engine" and "engine" not in (module, target):
            ranks = rank(ENGINE_LAYERS, module), rank(ENGINE_LAYERS, target)
            assert ranks[0] <= ranks[1], f"{module} -> {target}"


@pytest.mark.parametrize("module", [name for name in NAMES if part(name) == "engine"])
def test_ways_never_meet(module):
    way = next((way for way in WAYS if module.startswith(way)), None)
    for other in WAYS.keys() - {way}:
        if way is not None or module != "engine.ways":
            assert not any(target.startswith(other) for target in targets(module))
    if way is not None:
        assert not {name.partition(".")[0] for name in imports(module)} & {WAYS[way]}
    elif module not in {"engine.ways", "engine.nearest"}:
        assert "mlx" not in {name.partition(".")[0] for name in imports(module)}


def test_imports_close_no_circle():
    done = set()

    def visit(module, trail):
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for target in sorted(targets(module) - {""}):
                visit(target, [*trail, module])
            done.add(module)

    for module in NAMES:
        visit(module, [])


def test_no_two_classes_of_one_name():
    files = [*PACKAGE.rglob("*.py"), *ROOT.glob("scripts/**/*.py")]
    found = Counter(
        node.name
        for path in files
        if "engine" not in path.parts and path.name != "bench_gpu.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    # A benchmark's arm may run in an interpreter without this package, and its Worker is ours.
    assert {name for name, count in found.items() if count > 1} <= {"Arm", "Worker"}


@pytest.mark.parametrize("module", NAMES)
def test_modules_do_not_import_from_the_public_interface(module):
    taken = {name for name in imports(module) if name.startswith("mnist_kmeans_mlx.")}
    taken = {name.partition(".")[2] for name in taken}
    assert not taken & set(mnist_kmeans_mlx.__all__)


@pytest.mark.parametrize("module", [name for name in NAMES if part(name) == "engine"])
def test_the_engine_knows_only_arrays(module):
    assert not {name.partition(".")[0] for name in imports(module)} & NOT_IN_ENGINE
    names = {node.id for node in ast.walk(tree(module)) if isinstance(node, ast.Name)}
    assert not names & {"input", "open", "print"}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("tests/**/test_*.py")), ids=lambda path: path.name
)
def test_a_test_file_is_named_for_its_module(path):
    known = {script.stem.strip("_") for script in ROOT.glob("scripts/*")} | ABOUT_THE_WHOLE
    for module in NAMES:
        # engine.lloyd: test_lloyd or test_engine_lloyd
        parts = module.split(".")
        known |= {"_".join(parts[number:]).strip("_") for number in range(len(parts))}
    assert path.stem.removeprefix("test_") in known


def test_public_names_come_from_the_right_modules():
    offered = {}
    for node in ast.walk(tree("")):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mnist_kmeans_mlx."):
            for alias in node.names:
                offered[alias.name] = node.module.partition(".")[2]
    assert offered == mnist_kmeans_mlx._MODULES
    assert sorted(offered) == sorted(mnist_kmeans_mlx.__all__)
    assert set(mnist_kmeans_mlx.__all__) <= set(dir(mnist_kmeans_mlx))
    with pytest.raises(AttributeError, match="no attribute 'KMedians'"):
        _ = mnist_kmeans_mlx.KMedians


@pytest.mark.parametrize("name", mnist_kmeans_mlx.__all__)
def test_public_names_are_documented(name):
    thing = getattr(mnist_kmeans_mlx, name)
    assert thing.__module__.startswith("mnist_kmeans_mlx.")
    assert thing.__doc__
    for attribute, value in vars(thing).items() if isinstance(thing, type) else ():
        if not attribute.startswith("_") and isinstance(value, FunctionType | property):
            assert inspect.getdoc(getattr(thing, attribute)), attribute


@pytest.mark.parametrize(
    "argv",
    [None, ["--help"], ["--version"], ["fit", "--help"]],
    ids=["import", "help", "version", "fit-help"],
)
def test_loads_fast(argv):
    code = f"""
import json, runpy, sys
argv = {argv!r}
if argv is None:
    import mnist_kmeans_mlx
else:
    sys.argv[1:] = argv
    try:
        runpy.run_module("mnist_kmeans_mlx", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, end.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
    assert not SLOW_TO_LOAD & set(json.loads(run("-c", code).stderr))
