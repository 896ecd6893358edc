"""README and site as a reader follows them: the code of a page, run in order in one folder."""

import doctest
import os
import re
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
# Each goes on in the folder of the one before, and the README shows some of their commands.
COMMANDS = [
    *(DOCS / f"cli/{name}.md" for name in ("fit", "predict", "compare", "sweep", "report", "info")),
    README,
]
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def name(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, *languages):
    """Pairs of language and text of the fenced code on a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [block for block in found if not languages or block[0] in languages]


def steps(text):
    """Pairs of a command and the output shown below it; a command ends where a line does."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def commands(*pages):
    return [step for page in pages for _, text in blocks(page, "console") for step in steps(text)]


def same(shown, found):
    """Whether a command printed what is shown; an ellipsis may stand for nothing, or for all."""
    shown = re.sub(r"\s*\.\.\.\s*", "...", shown)
    return doctest.OutputChecker().check_output(shown, found, FLAGS)


@dataclass
class Walk:
    """A folder in which pages are followed, and what each command printed there.

    A command that printed no result is known by its notes.
    """

    folder: Path
    device: str
    outputs: dict[str, str] = field(default_factory=dict)
    names: dict[str, object] = field(default_factory=dict)

    def follow(self, page, *languages):
        """Run the commands and the Python of a page; a command that has run is not run again."""
        for language, text in blocks(page, *(languages or ("console", "python"))):
            if language == "python":
                self.python(text, name(page))
                continue
            for command, _ in steps(text):
                if command not in self.outputs:
                    self.outputs[command] = self.shell(command)

    def python(self, text, page):
        """Run examples, with the names of those before."""
        test = doctest.DocTestParser().get_doctest(text, self.names, page, None, 0)
        assert test.examples, f"{page} shows Python without >>>:\n{text}"
        said = []
        with chdir(self.folder):
            result = doctest.DocTestRunner(optionflags=FLAGS).run(
                test, out=said.append, clear_globs=False
            )
        assert result.failed == 0, "".join(said)
        self.names = test.globs

    def shell(self, command):
        environment = os.environ | {
            "COLUMNS": "80",
            "PYTHONUTF8": "1",
            "MNIST_KMEANS_MLX_DEVICE": self.device,
            "XDG_STATE_HOME": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        # They are in the way of a quick BLAS, and compare says so.
        for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            environment.pop(variable, None)
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment, capture_output=True,
            encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout or done.stderr
