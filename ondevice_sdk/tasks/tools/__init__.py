"""Calls of tools: `flow` is the task, `offers` the tools, `choice` picks, `evidence` and `values` bind arguments."""
