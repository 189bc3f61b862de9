"""The `ondevice` command."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line; errors of the SDK become one message and exit code 1, Ctrl-C becomes 130."""
    from ondevice_sdk import errors
    from ondevice_sdk.cli import output
    from ondevice_sdk.cli.app import app

    # What a terminal cannot show, or did not send as text, is no reason to end with a traceback.
    for stream, handling in ((sys.stdout, "replace"), (sys.stdin, "surrogateescape")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=handling)
    try:
        app(standalone_mode=True)
    except errors.OnDeviceError as error:
        output.show_error(error, as_json="--json" in sys.argv)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.stderr.close()
        sys.exit(141)
