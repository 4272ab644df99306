"""A copy of what is committed, for scripts that break it and see what the tests say."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Copy:
    """HEAD, unpacked in build/NAME and built there without nvcc (preset release).

    Install ccache, or the first build is a whole one each time.
    """

    def __init__(self, name):
        self.tree = ROOT / "build" / name
        self.binaries = self.tree / "build" / "release"
        shutil.rmtree(self.tree, ignore_errors=True)
        self.tree.mkdir(parents=True)
        subprocess.run(f"git archive HEAD | tar -x -m -C {self.tree}", shell=True, cwd=ROOT,
                       check=True)
        os.environ["GIT_DIR"] = str(self.tree / "none")  # or a change were in the version, too
        if self.run(["cmake", "--preset", "release", "-DLAB_CUDA=OFF"]).returncode:
            sys.exit("cmake refuses the project itself")
        if not self.build():
            sys.exit("the project itself does not build")
        os.environ["CCACHE_READONLY"] = "1"  # what is broken is not built again

    def run(self, command, **more):
        return subprocess.run(command, cwd=self.tree, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", **more)

    def build(self):
        return self.run(["cmake", "--build", "--preset", "release", "--parallel",
                         str(os.cpu_count()), "--target", "lab_test"]).returncode == 0

    @contextlib.contextmanager
    def changed(self, texts):
        """The files of `texts` (path -> text) have these texts while the context lasts."""
        before = {file: (self.tree / file).read_text() for file in texts}
        for file, text in texts.items():
            (self.tree / file).write_text(text)
        try:
            yield
        finally:
            for file, text in before.items():
                (self.tree / file).write_text(text)
