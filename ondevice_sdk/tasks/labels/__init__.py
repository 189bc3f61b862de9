"""Closed labels: `flow` is the task; `pages` is what the model reads, `odds` the arithmetic, `learned` what is kept."""
