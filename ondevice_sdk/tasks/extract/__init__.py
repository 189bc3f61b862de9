"""Extraction into a schema.

`flow` is the task; `outline` reads the schema, `questions` and `named` look fields up, `ask` and `match` weigh pieces
of the text, `found` keeps what was found, `check` holds written values against the text.
"""
