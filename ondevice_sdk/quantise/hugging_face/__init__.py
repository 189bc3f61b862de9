"""Models in Hugging Face's form (a folder with safetensors) made into one GGUF file; all but `adding` runs in a worker.

Nothing is guessed: an architecture, a tensor, a way of cutting text or an option that is not known here is refused.
"""
