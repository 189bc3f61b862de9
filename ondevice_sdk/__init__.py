"""Private AI inside your app: summarise, analyse and generate on the user's own device, with no network."""

__version__ = "0.1.0"
