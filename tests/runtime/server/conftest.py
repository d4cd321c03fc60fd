"""A server in a process of its own, as ``showface serve`` starts it."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from showface.runtime import Inpainter

START_SECONDS = 300  # on a machine that other tests keep busy
REFUSED = "the server responded with a status of 503"  # Chromium's own note of what a test asks for
WIDE = {"width": 1440, "height": 900}


class Server:
    """A running server: its address, what it says, and a client of it."""

    def __init__(self, *arguments):
        command = (sys.executable, "-m", "showface.cli", "--threads", "1", "serve", "--port", "0", "--device", "cpu")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.said, self._ready = [], threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        assert self._ready.wait(START_SECONDS), self.said
        found = re.search(r"serving on (http://\S+);", self.text)
        assert found, self.text
        self.url = found[1].rstrip("/")
        self.client = httpx.Client(base_url=self.url, timeout=300)

    def _listen(self):
        for line in self.process.stderr:
            self.said.append(line)
            if "serving on" in line:
                self._ready.set()
        self._ready.set()

    @property
    def text(self):
        return "".join(self.said)

    def post(self, path="/inpaint", data=None, **files):
        """Send a form; ``files`` are bytes by field."""
        return self.client.post(path, data=data, files={name: (name, value) for name, value in files.items()})

    def stop(self, number=signal.SIGTERM):
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(300)
        self._listener.join(10)
        return code


@contextmanager
def serving(*arguments):
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.client.close()
        server.process.kill()
        server.process.wait(300)


@pytest.fixture(scope="session")
def start(narrow_bundle):
    """Return a function that starts a server of the narrow bundle, in a ``with``."""
    return lambda *arguments: serving("--bundle", narrow_bundle, *arguments)


@pytest.fixture(scope="module")
def server(start):
    with start("--queue", "8") as running:
        yield running


@pytest.fixture(scope="session")
def inpainter(narrow_bundle):
    return Inpainter.from_bundle(narrow_bundle, "cpu", 1)


def file_of(pixels, kind="PNG", **options):
    """Return the bytes of an image file; a hole (H, W) bool becomes a mask."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def encode():
    return file_of


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with playwright.sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, server):
    """Return a function that opens the page; at the end nothing may have gone wrong in it, or left for elsewhere."""
    contexts, faults, hosts = [], [], set()

    def start(viewport=WIDE, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: faults.append(message.text) if REFUSED not in message.text else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(server.url)
        page.wait_for_selector("#painting", state="attached")
        return page

    yield start
    for context in contexts:
        context.close()
    assert faults == []
    assert hosts - {""} == {urlsplit(server.url).netloc}  # blob: and data: have no host
