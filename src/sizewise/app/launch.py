"""Starting the app: Streamlit on this machine only, with nothing sent anywhere."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sizewise import palette
from sizewise.app.crisis.settings import read_settings
from sizewise.errors import ConfigError

ADDRESS = "127.0.0.1"
LOCAL = (ADDRESS, "localhost")
TOKEN = "SIZEWISE_APP_TOKEN"  # in the environment: arguments are shown to every user
PORTS = range(1, 65_536)
SCRIPT = Path(__file__).parent / "pages" / "main.py"


def app_command(
    directory: Path,
    port: int,
    crisis: Path | None = None,
    outputs: Path | None = None,
    trust: bool = False,
) -> list[str]:
    """Return the command that serves the app.

    Args:
        directory: sweeps or runs to look at.
        crisis: settings of the crisis detector (see docs/crisis_detector.md).
        outputs: parent of evaluations that are started in the app.
        trust: let them call metrics that a record names and that are not sizewise's.

    Raises:
        ConfigError: Streamlit is not installed, there is no such directory or port, or the
            settings of the detector are wrong.
    """
    if port not in PORTS:
        raise ConfigError(f"--port {port} is no port. Give one from {PORTS[0]} to {PORTS[-1]}.")
    if importlib.util.find_spec("streamlit") is None:
        raise ConfigError("The app needs Streamlit. Install it: pip install 'sizewise[app]'.")
    if not directory.is_dir():
        raise ConfigError(f"{directory} is no directory. Give a sweep's, a run's, or their parent.")
    if crisis is not None and not crisis.is_file():
        raise ConfigError(f"--crisis {crisis} is no file.")
    read_settings(crisis)
    options = {
        "server.address": ADDRESS,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.runOnSave": "false",
        "server.enableAgentApi": "false",
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": ADDRESS,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        # One colour for each: a colour for both would turn the browser's wish for dark off.
        "theme.light.primaryColor": palette.ZERO,
        "theme.dark.primaryColor": palette.DARK[palette.ZERO],
    }
    flags = [text for key, value in options.items() for text in (f"--{key}", value)]
    own = ["--", str(directory.resolve())]
    own += ["--crisis", str(crisis.resolve())] if crisis is not None else []
    own += ["--outputs", str((outputs or Path("outputs")).resolve())]
    own += ["--trust"] if trust else []
    return [sys.executable, "-m", "streamlit", "run", str(SCRIPT), *flags, *own]


def launch(command: Sequence[str], port: int) -> int:
    """Run ``app_command`` until it is stopped (Ctrl-C or SIGTERM); return the exit code.

    Who has the printed address may look: it holds a token that is drawn anew at every start.
    """
    token = secrets.token_urlsafe(32)
    sys.stdout.write(f"sizewise: http://{ADDRESS}:{port}/?token={token} (stop with Ctrl-C)\n")
    sys.stdout.flush()
    environment = {**os.environ, "DO_NOT_TRACK": "1", TOKEN: token}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _wait(subprocess.Popen(command, env=environment))
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        return process.wait()


def may_enter(given: str | None) -> bool:
    """Whether a visitor brought the token of this start; nobody does where none was set."""
    token = os.environ.get(TOKEN, "")
    return bool(token) and secrets.compare_digest((given or "").encode(), token.encode())


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a connection comes from a page of this very app.

    Streamlit lets in every page of this machine, whatever its port. A browser always names the
    origin; what is no browser has to bring the token all the same.
    """
    found = {name.lower(): value for name, value in headers.items()}
    origin = found.get("origin")
    if origin is None:
        return True
    place = urlsplit(origin)
    return place.netloc == found.get("host") and place.hostname in LOCAL
