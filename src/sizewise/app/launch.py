"""Starting the app: Streamlit on this machine only, with nothing sent anywhere."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from sizewise import palette
from sizewise.app.crisis.settings import read_settings
from sizewise.errors import ConfigError

ADDRESS = "127.0.0.1"
SCRIPT = Path(__file__).parent / "pages" / "main.py"


def app_command(
    directory: Path, port: int, crisis: Path | None = None, outputs: Path | None = None
) -> list[str]:
    """Return the command that serves the app.

    Args:
        directory: sweeps or runs to look at.
        port: on which it listens, on 127.0.0.1 only.
        crisis: settings of the crisis detector (see docs/crisis_detector.md).
        outputs: parent of evaluations that are started in the app.

    Raises:
        ConfigError: Streamlit is not installed, there is no such directory, or the settings of
            the detector are wrong.
    """
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
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": ADDRESS,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        # One colour for each: a colour for both would turn the browser's wish for dark off.
        "theme.light.primaryColor": palette.ZERO,
        "theme.dark.primaryColor": "#2B87C4",
    }
    flags = [text for key, value in options.items() for text in (f"--{key}", value)]
    own = ["--", str(directory.resolve())]
    own += ["--crisis", str(crisis.resolve())] if crisis is not None else []
    own += ["--outputs", str((outputs or Path("outputs")).resolve())]
    return [sys.executable, "-m", "streamlit", "run", str(SCRIPT), *flags, *own]


def launch(
    directory: Path, port: int, crisis: Path | None = None, outputs: Path | None = None
) -> int:
    """Serve the app until it is stopped (Ctrl-C or SIGTERM); return the exit code."""
    command = app_command(directory, port, crisis, outputs)
    sys.stdout.write(f"sizewise: http://{ADDRESS}:{port} (stop with Ctrl-C)\n")
    sys.stdout.flush()
    environment = {**os.environ, "DO_NOT_TRACK": "1"}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        return process.wait()
