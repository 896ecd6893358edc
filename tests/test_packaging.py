import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import mnist_kmeans_mlx
from mnist_kmeans_mlx.cli import main

ROOT = Path(__file__).parent.parent
SCRIPTS = [ROOT / "scripts/demo", ROOT / "scripts/test", ROOT / ".ci/run"]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The wheel and the source archive; the wheel is built from the archive, as by a packager."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    (archive,) = folder.glob("*.tar.gz")
    return wheel, archive


@pytest.mark.slow
def test_wheel_holds_all_that_the_package_needs(distributions):
    names = set(zipfile.ZipFile(distributions[0]).namelist())
    package = ROOT / "mnist_kmeans_mlx"
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"mnist_kmeans_mlx/_data/mnist.npz", "mnist_kmeans_mlx/py.typed"} <= wanted
    meta = f"mnist_kmeans_mlx-{mnist_kmeans_mlx.__version__}.dist-info"
    assert wanted | {f"{meta}/licenses/LICENSE"} <= names
    assert {name.partition("/")[0] for name in names} == {"mnist_kmeans_mlx", meta}


@pytest.mark.slow
def test_source_archive_holds_the_tests_and_no_litter(distributions):
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "scripts/test", "tests/conftest.py"} <= names
    assert {"docs/conf.py", "docs/index.md", "docs/howto/palette.png"} <= names
    litter = (".venv", ".git/", "dist", "docs/api/", "site/")
    assert not [name for name in names if name.startswith(litter)]


def test_metadata_names_the_systems_that_mlx_comes_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    systems = {name for name in project["classifiers"] if name.startswith("Operating System")}
    assert systems == {"Operating System :: MacOS", "Operating System :: POSIX :: Linux"}
    assert "for macOS and Linux" in project["description"]


@pytest.mark.slow
def test_wheel_works_alone(distributions, device, tmp_path):
    home = tmp_path / "a venv"
    wheel = f"mnist-kmeans-mlx[cpu] @ {distributions[0].as_uri()}"
    python = home / "bin/python"
    if shutil.which("uv"):
        venv.create(home, symlinks=True)
        run("uv", "pip", "install", "--quiet", "--python", str(python), wheel)
    else:
        venv.create(home, symlinks=True, with_pip=True)
        run(str(python), "-m", "pip", "install", "--quiet", wheel)

    empty = tmp_path / "empty"
    empty.mkdir()
    here = {"cwd": empty, "env": {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}}
    version = run(str(home / "bin/mnist-kmeans-mlx"), "--version", **here)
    assert mnist_kmeans_mlx.__version__ in version
    code = f"""
from mnist_kmeans_mlx import KMeans, load_mnist, __file__
x = load_mnist().x_train[:2000].reshape(2000, -1)
km = KMeans(n_clusters=10, n_init=1, random_state=0, device={device!r}).fit(x)
print(len(set(km.labels_.tolist())), __file__)
"""
    clusters, file = run(str(python), "-c", code, **here).split(maxsplit=1)
    assert clusters == "10"
    assert Path(file.strip()).is_relative_to(home)
    assert not list(empty.iterdir())


def test_issue_forms_and_workflows_name_commands_that_there_are():
    texts = [path.read_text() for path in ROOT.glob(".github/**/*.yml")]
    named = re.findall(r"mnist-kmeans-mlx ([a-z]+)((?: [-\w,]+)*)", "\n".join(texts))
    assert {"compare", "env", "fit"} <= {command for command, _ in named} <= set(main.commands)
    for command, words in named:
        main.commands[command].make_context(command, words.split())


def test_the_version_is_in_one_place():
    for name in ("pyproject.toml", "CITATION.cff"):
        assert mnist_kmeans_mlx.__version__ not in (ROOT / name).read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_can_be_started(script):
    assert os.access(script, os.X_OK)
    run("bash", "-n", str(script))


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck():
    run("shellcheck", "--external-sources", *map(str, SCRIPTS), cwd=ROOT)


LINUX = {"uname": 'case $1 in -s) echo Linux ;; *) echo "${MACHINE:-x86_64}" ;; esac'}
MAC = {"uname": 'case $1 in -s) echo Darwin ;; *) echo "${MACHINE:-arm64}" ;; esac'}
ENOUGH = {
    "getconf": "echo glibc 2.36",
    "sysctl": "echo 1",
    "sw_vers": "echo 15.1",
    "df": "echo 'a disk 9 9 99999999 1% /'",
}
PYTHONS = ("python3", "python3.11", "python3.12", "python3.13", "python3.14")
NO_PYTHON = dict.fromkeys((*PYTHONS, "uv"), "exit 127")
# Makes venvs in which pip does nothing but fail.
NO_NETWORK = dict.fromkeys(
    PYTHONS,
    'case "$1 $2" in "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;'
    ' "-m pip") exit 1 ;; esac',
)
NO_ENSUREPIP = dict.fromkeys(PYTHONS, "case $2 in *ensurepip*) exit 1 ;; esac")


LOWEST = {"RESOLUTION": "lowest-direct"}


@pytest.mark.parametrize(
    ("commands", "environment", "sentence"),
    [
        (MAC | {"sysctl": "exit 1"}, {"MACHINE": "x86_64"}, "this is an Intel Mac."),
        (MAC | {"sw_vers": "echo 13.6"}, {}, "macOS 14 or later, and this is 13.6."),
        (LINUX, {"MACHINE": "riscv64"}, "x86_64 and aarch64, and this machine is riscv64."),
        (LINUX | {"getconf": "echo glibc 2.31"}, {}, "MLX needs glibc 2.35 or later"),
        (LINUX | {"getconf": "exit 1"}, {}, "MLX needs glibc 2.35 or later"),
        ({"uname": "echo FreeBSD"}, {}, "MLX comes for macOS and Linux, and this is FreeBSD."),
        (LINUX | {"df": "echo '/dev/a b 9 9 2500 99% /'"}, {}, "this disk has 2 MB left."),
        (LINUX | NO_PYTHON, {}, "found no Python 3.11 or later;"),
        (MAC | NO_PYTHON, {}, "found no native (arm64) Python 3.11 or later;"),
        (LINUX, {"PYTHON": "false"}, "PYTHON=false is not Python 3.11 or later."),
        (LINUX | NO_ENSUREPIP | {"uv": "exit 1"}, {}, "install python3-venv"),
        (LINUX | NO_NETWORK | {"uv": "exit 1"}, {}, "the dependencies could not be installed;"),
        (LINUX | NO_NETWORK | {"uv": "exit 1"}, LOWEST, "needs uv, which pip could not install;"),
        (LINUX | NO_PYTHON, LOWEST, "found no Python 3.11 (RESOLUTION=lowest-direct is set);"),
    ],
)
@pytest.mark.parametrize("script", ["demo", "test"])
def test_set_up_says_in_one_sentence_what_is_missing(
    script, commands, environment, sentence, tmp_path
):
    """Each machine is played by the few commands that the set-up asks about it."""
    tree = tmp_path / "a tree"
    shutil.copytree(ROOT / "scripts", tree / "scripts")
    (tree / "mnist_kmeans_mlx").mkdir()
    for name in ("pyproject.toml", "mnist_kmeans_mlx/__init__.py"):
        shutil.copy(ROOT / name, tree / name)
    stage = tmp_path / "bin"
    stage.mkdir()
    for name, body in (ENOUGH | commands).items():
        (stage / name).write_text(f"#!/bin/sh\n{body}\n")
        (stage / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(tree / "scripts" / script)],
        env={"PATH": f"{stage}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    message = [line for line in done.stderr.splitlines() if not line.startswith("setting up")]
    assert len(message) == 1, done.stderr
    assert message[0].startswith(f"{script}: ")
    assert sentence in message[0]
    assert not list(tree.glob(".venv*/.ready"))
