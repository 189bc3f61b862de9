"""Where the foreign code of chat templates runs: a Jinja sandbox that is bounded in time and size.

Every value that a template makes is weighed when it is made (lists in lists count as often as they can be reached), and
every operation is charged for what it reads and writes. So no single operation of the interpreter can take long, and
between two of them the clock is looked at. What is not on the lists below does not exist for a template: they hold what
the templates of published models use, and leave out what takes a width or a count.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from ondevice_sdk.errors import ModelUnsupported

if TYPE_CHECKING:
    from jinja2 import Environment, Template, nodes
    from jinja2.runtime import Context

BUDGET: Final = "ondevice_budget"  # the variable of a rendering that holds its `Budget`
MAX_SOURCE: Final = 64_000  # characters; the longest templates of published models have half of that
MAX_SIZE: Final = 1_000_000  # characters and items of one value, and of all output
_MAX_WORK: Final = 50_000_000  # characters and items read and written by one rendering
_STEP: Final = 100  # what an iteration or a call costs at least
_MAX_POWER: Final = 100
_MAX_S: Final = 1.0  # of this thread's computing: a busy machine refuses no honest template
_HARD_S: Final = 10.0  # of the clock on the wall, until a worker is ended in which nobody looks at the time any more

_FILTERS: Final = frozenset(
    [
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "dictsort",
        "e",
        "escape",
        "first",
        "float",
        "format",
        "groupby",
        "indent",
        "int",
        "items",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "replace",
        "reverse",
        "round",
        "safe",
        "select",
        "selectattr",
        "sort",
        "string",
        "title",
        "tojson",
        "trim",
        "truncate",
        "unique",
        "upper",
    ]
)
_LOOKS: Final = frozenset({"count", "d", "default", "first", "last", "length"})  # do not go through all of a value
_METHODS: Final[dict[type, frozenset[str]]] = {
    str: frozenset(
        [
            "capitalize",
            "casefold",
            "count",
            "endswith",
            "find",
            "index",
            "isalnum",
            "isalpha",
            "isdecimal",
            "isdigit",
            "islower",
            "isnumeric",
            "isspace",
            "istitle",
            "isupper",
            "join",
            "lower",
            "lstrip",
            "partition",
            "removeprefix",
            "removesuffix",
            "replace",
            "rfind",
            "rindex",
            "rpartition",
            "rsplit",
            "rstrip",
            "split",
            "splitlines",
            "startswith",
            "strip",
            "swapcase",
            "title",
            "upper",
        ]
    ),
    dict: frozenset(["get", "items", "keys", "values"]),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}
_WIDE = re.compile(r"%[^%a-zA-Z]*(?:\*|\d{3})")  # a conversion that is to fill hundreds of columns

# Asks for an alarm that ends the whole process in so many seconds; 0 takes it back. Only a worker process has one.
_alarm: ContextVar[Callable[[float], object] | None] = ContextVar("ondevice_alarm", default=None)


class Refused(Exception):
    """The template refuses its messages, or does too much."""


class Budget:
    """Counts what one rendering does, and looks at the clock, so that it ends."""

    def __init__(self) -> None:
        self._left = _MAX_WORK
        self._until = time.thread_time() + _MAX_S

    def spend(self, work: int = 0) -> None:
        """Take away from what is left.

        Raises:
            Refused: it is used up, or the time is.
        """
        self._left -= _STEP + work
        if self._left < 0 or time.thread_time() > self._until:
            raise Refused

    def iterate(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, each of which costs."""
        for item in items:
            self.spend()
            yield item

    def check(self, value: Any) -> Any:
        """The value, charged by its size; an iterator becomes a list.

        Raises:
            Refused: it is too large.
        """
        if isinstance(value, Iterator):
            value = list(self.iterate(value))
        self.spend(size(value))
        return value


def size(value: Any) -> int:
    """Characters and items of a value with all that can be reached from it, as often as it can be reached.

    Raises:
        Refused: more than one value may have.
    """
    total = 0
    waiting = [value]
    while waiting:
        each = waiting.pop()
        total += 1
        if isinstance(each, str):
            total += len(each)
        elif isinstance(each, list | tuple):
            total += len(each)
            if total <= MAX_SIZE:
                waiting += each
        elif isinstance(each, dict):
            total += len(each)
            if total <= MAX_SIZE:
                waiting += each.keys()
                waiting += each.values()
        elif isinstance(each, int):
            total += each.bit_length() // 8
        if total > MAX_SIZE:
            raise Refused
    return total


def alarm_ends_process() -> None:
    """Have the system end this process if a template keeps it busy where no code of ours is asked. Main thread only.

    For workers: the alarm's default action needs no co-operation of the interpreter.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        _alarm.set(lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds))


@contextlib.contextmanager
def alarmed() -> Iterator[None]:
    """The block runs under the alarm, if this process has asked for one."""
    alarm = _alarm.get()
    if alarm is None:
        yield
        return
    alarm(_HARD_S)
    try:
        yield
    finally:
        alarm(0)


@lru_cache(maxsize=8)
def compiled(source: str) -> Template:
    """Compile a template for the sandbox.

    Raises:
        ModelUnsupported: it is no valid template, uses what does not exist here, or is too long.
    """
    if len(source) > MAX_SOURCE:
        raise ModelUnsupported(f"the model's chat template is longer than {MAX_SOURCE} characters")
    try:
        environment = _environment()
        return environment.from_string(_bounded(environment.parse(source)))
    except Exception as error:
        raise ModelUnsupported("the model's chat template is not valid") from error


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace, pass_context

    class Bounded(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

        def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
            budget: Budget = context[BUDGET]
            arguments = [budget.check(argument) for argument in args]
            budget.check(kwargs)
            _check_text_method(obj, arguments)
            return budget.check(super().call(context, obj, *arguments, **kwargs))

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            budget: Budget = context[BUDGET]
            if operator in ("*", "**"):
                weights = [len(v) if isinstance(v, str | list | tuple) else abs(v) for v in (left, right)]
                if weights[0] * weights[1] > (MAX_SIZE if operator == "*" else _MAX_POWER):
                    raise Refused
            elif operator == "%" and isinstance(left, str):
                _check_conversions(left, size(right))
            return budget.check(super().call_binop(context, operator, left, right))

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            if not super().is_safe_attribute(obj, attr, value):
                return False
            for kind, names in _METHODS.items():
                if isinstance(obj, kind):
                    return attr in names
            return not isinstance(obj, int | float | complex | bytes | bytearray | memoryview | type)

        def wrap_str_format(self, value: Any) -> None:
            """`str.format` and its widths do not exist: the attribute is refused like any other."""

    class OpaqueNamespace(Namespace):
        """Namespaces may hold each other; printed with what they hold, they could be of any length."""

        def __repr__(self) -> str:
            return "<namespace>"

    @pass_context
    def bounded(context: Context, items: Iterable[Any]) -> Iterator[Any]:
        budget: Budget = context[BUDGET]
        return budget.iterate(items)

    @pass_context
    def checked(context: Context, value: Any) -> Any:
        return context[BUDGET].check(value)

    @pass_context
    def spent(context: Context, work: int) -> str:
        context[BUDGET].spend(work)
        return ""

    def raise_exception(message: str) -> None:  # noqa: ARG001 - may quote the conversation
        raise Refused

    # Undefined names are empty, as everywhere: real templates ask for `message.tool_calls` without a test.
    environment = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], optimized=False)
    given, environment.filters = environment.filters, {}
    for name in _FILTERS:
        environment.filters[name] = _limited(name, given[name])
    environment.filters |= {"ondevice_bounded": bounded, "ondevice_checked": checked, "ondevice_spent": spent}
    del environment.globals["lipsum"]
    environment.globals["namespace"] = OpaqueNamespace
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that checks what it takes and gives. As it needs the context, nothing is computed while compiling."""
    from jinja2.utils import pass_context

    needs = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @pass_context
    def limited(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget: Budget = context[BUDGET]
        if name not in _LOOKS:
            value = budget.check(value)
        arguments = [budget.check(argument) for argument in args]
        budget.check(kwargs)
        _check_filter(name, value, [*arguments, *kwargs.values()])
        if needs is not None:
            first = {"context": context, "eval_context": context.eval_ctx}.get(needs, context.environment)
            return budget.check(function(first, value, *arguments, **kwargs))
        return budget.check(function(value, *arguments, **kwargs))

    return limited


def _check_filter(name: str, value: Any, arguments: Sequence[Any]) -> None:
    """Refuse what would give something large from something small."""
    if name == "format":
        _check_conversions(str(value), size(arguments))
    elif name == "join":
        if isinstance(value, list | tuple | dict | str) and len(value) * size(arguments) > MAX_SIZE:
            raise Refused
    elif name == "replace":
        _check_replacement(str(value), arguments)
    elif name in ("indent", "tojson"):
        widths = [abs(v) if isinstance(v, int) else len(v) for v in arguments if isinstance(v, int | str)]
        if size(value) * sum(widths) > MAX_SIZE:
            raise Refused


def _check_text_method(method: Any, arguments: Sequence[Any]) -> None:
    text = getattr(method, "__self__", None)
    if not isinstance(text, str):
        return
    name = getattr(method, "__name__", "")
    if name == "join" and arguments and isinstance(arguments[0], list | tuple | dict | str):
        if len(arguments[0]) * len(text) > MAX_SIZE:
            raise Refused
    elif name == "replace":
        _check_replacement(text, arguments)


def _check_replacement(text: str, arguments: Sequence[Any]) -> None:
    if len(arguments) >= 2 and text.count(str(arguments[0])) * len(str(arguments[1])) > MAX_SIZE:
        raise Refused


def _check_conversions(layout: str, arguments: int) -> None:
    if _WIDE.search(layout) or layout.count("%") * (arguments + 100) > MAX_SIZE:
        raise Refused


def _bounded(tree: nodes.Template) -> nodes.Template:
    """Put the checks into a parsed template."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    def through(name: str, node: nodes.Node) -> nodes.Filter:
        return nodes.Filter(cast("nodes.Expr", node), name, [], [], None, None, lineno=node.lineno)

    class Checks(NodeTransformer):
        def checked(self, node: nodes.Expr) -> nodes.Filter:
            self.generic_visit(node)
            return through("ondevice_checked", node)

        visit_List = visit_Dict = visit_Compare = visit_Getitem = visit_Test = checked  # noqa: N815

        def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802 - the visitor's naming
            if node.ctx == "load":
                return self.checked(node)
            return node  # names that are assigned to

        def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
            self.generic_visit(node)
            node.nodes = [through("ondevice_checked", part) for part in node.nodes]
            return through("ondevice_checked", node)

        def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
            self.generic_visit(node)
            node.iter = through("ondevice_bounded", node.iter)
            return node

        def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802
            self.generic_visit(node)
            fixed = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
            parts = [
                part if isinstance(part, nodes.TemplateData) else through("ondevice_checked", part)
                for part in node.nodes
            ]
            node.nodes = [through("ondevice_spent", nodes.Const(fixed, lineno=node.lineno)), *parts]
            return node

    bounded: nodes.Template = Checks().visit(tree)
    return bounded


def _strftime_now(layout: str) -> str:
    from datetime import datetime

    if len(layout) > _STEP or re.search(r"%[^a-zA-Z%]*\d", layout):
        raise Refused
    return datetime.now().astimezone().strftime(layout)
