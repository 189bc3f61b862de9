"""JSON schemas that llguidance takes: rewritten so that whatever fits the outcome is valid under the original.

`source.schema_source` is the way in. `rewrite` puts keywords that llguidance does not know into those that it does
(into plain schemas, see `plain`), with `refs` for references, `base`, `names` and `outer` for what parts of a schema
say together, `deny` for negation and `patterns` for strings. `bounds` says how many tokens a value may take at least,
`unique` follows at runtime what no grammar can say.
"""
