"""Measure tasks on labelled data: figures with intervals, beside naive prompts to the same model.

```python
from ondevice_sdk import Client
from ondevice_sdk.evaluate import evaluate_file

with Client() as ai:
    print(evaluate_file(ai, "reviews.jsonl", "sentiment").to_markdown())
```
"""

from ondevice_sdk.evaluate.report import Baseline, Machine, Report, Row, Skipped
from ondevice_sdk.evaluate.run import evaluate, evaluate_file

__all__ = ["Baseline", "Machine", "Report", "Row", "Skipped", "evaluate", "evaluate_file"]
