"""The models that can be compiled: their configuration, and their definition for TVM."""
