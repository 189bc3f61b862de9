"""Measures speed and memory of models on this machine, beside the bare library, with intervals.

```python
from ondevice_sdk import bench

report = bench.run(["smollm2-135m-instruct", "random:llama-3.2-1b:Q4_0"], measures=["decode"], pairs=10)
result = bench.measure("smollm2-135m-instruct", measures=["prompt", "decode"])
print(result.figures["decode_tokens_per_s"].ratio)
table = bench.compare(["bf16", "int8", "int4"], model="random:llama-3.2-1b")
print(table.rows[2].ratios["decode_tokens_per_s"])
```
"""

from ondevice_sdk.bench.comparison import Comparison, Row, compare
from ondevice_sdk.bench.comparison_page import comparison_to_html
from ondevice_sdk.bench.conditions import (
    MEASURES,
    PAIRS,
    QUICK,
    QUICK_PAIRS,
    Conditions,
    MeasureName,
    Sizes,
    check_measures,
)
from ondevice_sdk.bench.page import to_html
from ondevice_sdk.bench.precisions import PRECISIONS, LeftOut, PrecisionName
from ondevice_sdk.bench.published import Published
from ondevice_sdk.bench.report import KINDS, Figure, Kind, Report, SubjectResult, kind, shown
from ondevice_sdk.bench.run import measure, run
from ondevice_sdk.bench.subjects import RandomModel, Subject, find, random_models, remove_random_models

__all__ = [
    "KINDS",
    "MEASURES",
    "PAIRS",
    "PRECISIONS",
    "QUICK",
    "QUICK_PAIRS",
    "Comparison",
    "Conditions",
    "Figure",
    "Kind",
    "LeftOut",
    "MeasureName",
    "PrecisionName",
    "Published",
    "RandomModel",
    "Report",
    "Row",
    "Sizes",
    "Subject",
    "SubjectResult",
    "check_measures",
    "compare",
    "comparison_to_html",
    "find",
    "kind",
    "measure",
    "random_models",
    "remove_random_models",
    "run",
    "shown",
    "to_html",
]
