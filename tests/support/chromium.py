"""The browser that is on this machine: Debian's package chromium, or what WEBHOOK_TEST_CHROMIUM names."""

import os
import shutil

CHROMIUM = os.environ.get("WEBHOOK_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
