"""One module per family of tasks: from labelled rows to figures."""
