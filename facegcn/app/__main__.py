"""A page in the browser that turns a photo into a textured 3D face.

    python -m facegcn.app [--port 7860]

It needs gradio (pip install gradio). Only this machine can open it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time

if not __package__:  # run by its path, as a Hugging Face Space does: modules are found from the project's top
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from facegcn.config import PROJECT
from facegcn.errors import UserError, guarded, log

_PORT = 7860
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def parse_arguments(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m facegcn.app", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=_PORT, help=f"of the page, 0 = any free one (default {_PORT})")
    parser.add_argument("--debug", action="store_true", help="show the traceback of every error")
    return parser.parse_args(arguments)


def serve(port: int) -> int:
    """Serves the page until the program is ended; then what it has written is removed.

    Raises:
        UserError: there is no gradio, or the port cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="facegcn-page-", ignore_cleanup_errors=True) as folder:
        # gradio reads these when it is imported; uploads, too, go into the folder that is removed.
        os.environ.update(_QUIET, GRADIO_TEMP_DIR=folder)
        gradio = _gradio()
        from facegcn.app import page
        from facegcn.app.workshop import Workshop

        plain = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
        # A Space's own machine is reached through its proxy only; anyone else's page stays at home.
        host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"
        blocks = page.build(gradio, Workshop(folder))
        try:
            _, url, _ = blocks.launch(
                server_name=host, server_port=port or _free_port(), share=False, prevent_thread_lock=True, quiet=True,
                max_file_size=page.UPLOAD_LIMIT, blocked_paths=[PROJECT], allowed_paths=[], theme=plain,
                css=page.CSS, head=page.HEAD,
                footer_links=[], ssr_mode=False, enable_monitoring=False, run_history=False, pwa=False)
        except OSError as error:
            raise UserError(f"the page cannot use port {port}: {error}. Try another: --port 0 takes any") from error
        log.info("the page is at %s (Ctrl-C ends it)", url)
        try:
            while True:
                time.sleep(3600)
        finally:
            blocks.close(verbose=False)


def _gradio():
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"the page needs gradio, which is not installed here: pip install gradio ({error})") from error
    return gradio


def _free_port() -> int:
    import socket
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def main(arguments=None) -> int:
    """Returns the exit code, see ``errors.guarded``."""
    args = parse_arguments(arguments)
    return guarded(lambda: serve(args.port), args.debug, lambda: "the page's temporary files are removed")


if __name__ == "__main__":
    sys.exit(main())
