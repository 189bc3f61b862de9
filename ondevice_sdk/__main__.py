"""`python -m ondevice_sdk` is the `ondevice` command."""

from ondevice_sdk.cli import main

main()
