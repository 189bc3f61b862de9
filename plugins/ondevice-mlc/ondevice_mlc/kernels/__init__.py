"""Functions of the compiled library in TVM's tensor IR, written for the vector instructions of CPUs."""
