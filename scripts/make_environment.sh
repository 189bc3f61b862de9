#!/usr/bin/env bash
# Make the virtual environment: the SDK with its llama.cpp backend, and the tools of the tests. PYTHON names the Python.
set -euo pipefail
venv=${1:?usage: make_environment.sh DIR}
python=${PYTHON:-python3.11}
start=$SECONDS

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: PYTHON=/path/to/python make demo" >&2; exit 1; }

echo "[1/2] environment in $venv"
"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --upgrade "pip>=25.1"
echo "      $((SECONDS - start)) s"

start=$SECONDS
cat <<'TEXT'
[2/2] installing the SDK with its llama.cpp backend
      llama-cpp-python is compiled from source for this very processor: 3 to 6 minutes on two cores, once; pip keeps the
      result in its cache. To avoid the compilation, put a ready wheel of llama-cpp-python into a folder and
      set PIP_FIND_LINKS to it.
TEXT
# llama.cpp's AMX kernels crash on some machines that announce AMX; without them it uses the AVX-512 ones.
if [ "$(uname -m)" = x86_64 ] && echo 'int main(){}' | "${CC:-cc}" -mno-amx-tile -mno-amx-int8 -x c -o /dev/null - 2>/dev/null; then
  export CFLAGS="${CFLAGS:-} -mno-amx-tile -mno-amx-int8 -mno-amx-bf16" CXXFLAGS="${CXXFLAGS:-} -mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
fi
# Only the library itself is needed: its tools, server and examples would double the time.
export CMAKE_ARGS="${CMAKE_ARGS:--DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_CURL=OFF}"
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc 2>/dev/null || echo 2)}"
"$venv/bin/pip" install --quiet --constraint constraints.txt --editable ".[llama-cpp,hub,cache,evaluate]" --group dev
echo "      $((SECONDS - start)) s"
