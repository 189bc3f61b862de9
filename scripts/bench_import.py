"""Time of `import ondevice_sdk` over a bare Python, in pairs of fresh processes: `python scripts/bench_import.py`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main(pairs: int = 20) -> None:
    seconds("import ondevice_sdk")  # writes the byte code
    over = [seconds("import ondevice_sdk") - seconds("pass") for _ in range(pairs)]
    print(f"import ondevice_sdk: {1000 * statistics.median(over):.0f} ms over bare Python (median of {pairs} pairs)")


if __name__ == "__main__":
    main()
