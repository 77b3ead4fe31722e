"""Jupyter servers of their own and a real browser, for the tests of this folder. Each wait has an end."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 90  # for any one thing to happen
CHROMIUM_NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge"]
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# No news and no update checks; nothing is saved unasked, so that the checkout's notebooks stay as they are.
SETTINGS = {
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false", "doNotDisturbMode": True},
    "docmanager-extension/plugin": {"autosave": False},
}


class Jupyter(NamedTuple):
    """A running JupyterLab or Notebook 7: its address, its token, its folder, the file that it logs to, how it opens a file."""

    url: str
    token: str
    root: Path
    log: Path
    opens: str = "lab/tree"

    def open(self, page, notebook):
        """Open a notebook (a path below the server's folder) and wait until its kernel is idle."""
        page.goto(f"{self.url}/{self.opens}/{notebook}?token={self.token}&reset")
        self.ready(page)

    def ready(self, page):
        """Wait until the page shows a notebook whose kernel is idle."""
        page.wait_for_function("window.jupyterapp !== undefined")
        page.evaluate("async () => { await window.jupyterapp.restored }")
        page.wait_for_function(
            """() => {
                const panel = window.jupyterapp.shell.currentWidget;
                const kernel = panel?.context?.sessionContext?.session?.kernel;
                return panel?.context?.isReady && kernel?.status === 'idle';
            }"""
        )


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_settings(folder):
    for name, values in SETTINGS.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def wait_until_it_answers(url, process, log):
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"Jupyter does not answer; its log:\n{log.read_text()[-4000:]}")


@contextlib.contextmanager
def ended_at_last(command, **options):
    """A process that is ended, with all that it started, however the tests go."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def jupyter(command, root, folder):
    """A server of the folder `root`, with config, data, runtime, settings and workspaces of its own in `folder`."""
    write_settings(folder / "settings")
    port, token, log = free_port(), secrets.token_hex(16), folder / "jupyter.log"
    env = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={root}",
        f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    ]
    with (
        log.open("w") as output,
        ended_at_last([*command, *options], cwd=root, env=env, stdout=output, stderr=output) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        wait_until_it_answers(f"{url}/api/status?token={token}", process, log)
        yield Jupyter(url, token, root, log)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """What `edgeconnect-lite lab` starts, in the checkout."""
    command = [sys.executable, "-m", "edgeconnect_lite.cli", "lab", "--"]
    with jupyter(command, ROOT, tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="session")
def notebook_server(tmp_path_factory):
    """What `jupyter notebook` starts, which serves JupyterLab too, in a folder outside the checkout where tests may write."""
    command = [sys.executable, "-m", "jupyter", "notebook", "--allow-root"]
    with jupyter(command, tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("notebook")) as server:
        yield server


JUPYTERLAB, NOTEBOOK_7 = "lab/tree", "notebooks"  # where their pages are


@pytest.fixture(scope="session", params=[JUPYTERLAB, NOTEBOOK_7], ids=["JupyterLab", "Notebook 7"])
def front_end(request, notebook_server):
    """Each program that opens notebooks."""
    return notebook_server._replace(opens=request.param)


@pytest.fixture(scope="session")
def browser(tmp_path_factory, needs_tool):
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    needs_tool("Chromium", executable)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("chromium")),
            executable_path=executable,
            args=CHROMIUM_ARGUMENTS,
            viewport={"width": 1100, "height": 1000},
        )
        context.set_default_timeout(SECONDS * 1000)
        yield context
        context.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    yield page
    page.close()
