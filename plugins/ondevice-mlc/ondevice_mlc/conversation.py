"""Chat templates of model folders: the model's own in Jinja where it is there, else one made of MLC's fields.

MLC describes a conversation by its pieces (`conv_template` of `mlc-chat-config.json`): a template for the system
message, a name for each role, what stands between a name and a content, and what ends a turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ondevice_mlc.folder import CONFIG, TOKENIZER_CONFIG, Folder, read_json, text
from ondevice_sdk.errors import ModelCorrupt

TEMPLATE_FILE: Final = "chat_template.jinja"
_SYSTEM: Final = "{system_message}"
_ROLES: Final = ("user", "assistant", "tool")


def chat_template(folder: Folder) -> str | None:
    """The template of a folder as Jinja; None if the model is not one to chat with.

    The model's own template comes first, since the other backends use it too.

    Raises:
        ModelCorrupt: what describes it is not of a known form.
    """
    if TEMPLATE_FILE in folder.files:
        try:
            return folder.files[TEMPLATE_FILE].read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ModelCorrupt(f"{TEMPLATE_FILE} cannot be read as text") from error
    own = tokenizer_config(folder).get("chat_template")
    if isinstance(own, list):  # several, by name
        named = [each for each in own if isinstance(each, dict) and each.get("name") == "default"]
        own = named[0].get("template") if named else None
    if isinstance(own, str) and own:
        return own
    fields = folder.config.get("conv_template")
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise ModelCorrupt(f"'conv_template' of {CONFIG} is not an object")
    return to_jinja(fields)


def tokenizer_config(folder: Folder) -> Mapping[str, Any]:
    """What `tokenizer_config.json` says; nothing where there is none.

    Raises:
        ModelCorrupt: it is not JSON.
    """
    path = folder.files.get(TOKENIZER_CONFIG)
    return {} if path is None else read_json(path)


def to_jinja(fields: Mapping[str, Any]) -> str:
    """A Jinja template that lays out what MLC lays out by these fields.

    Raises:
        ModelCorrupt: they are not of the known form.
    """
    roles, layouts = _strings(fields, "roles"), _strings(fields, "role_templates")
    ends = fields.get("seps") or [""]
    if not isinstance(ends, list) or not all(isinstance(end, str) for end in ends) or len(ends) > 2:
        raise ModelCorrupt("'seps' of the conversation template are not one or two strings")
    between = text(fields, "role_content_sep")
    before, _, after = text(fields, "system_template", _SYSTEM).partition(_SYSTEM)
    default = text(fields, "system_message")
    named = "true" if fields.get("add_role_after_system_message", True) else "false"
    has_system = "true" if before or default or after else "false"

    system = (
        "{%- if messages and messages[0]['role'] == 'system' -%}{%- set system = true -%}"
        f"{_literal(before)}{{{{- messages[0]['content'] -}}}}{_literal(after)}"
        f"{{%- else -%}}{{%- set system = {has_system} -%}}{_literal(before + default + after)}{{%- endif -%}}"
        "{%- set first = 1 if messages and messages[0]['role'] == 'system' else 0 -%}"
    )
    branches = []
    for role in _ROLES:
        if role not in roles:
            continue
        head, mark, tail = layouts.get(role, f"{{{role}_message}}").partition(f"{{{role}_message}}")
        if not mark:
            raise ModelCorrupt("a role of the conversation template has no place for its message")
        end = ends[-1] if role == "assistant" else ends[0]
        unnamed = f"{{%- if {named} or not system or loop.index0 != first -%}}"
        branches.append(
            f"if message['role'] == '{role}' -%}}{unnamed}{_literal(roles[role] + between)}{{%- endif -%}}"
            f"{_literal(head)}{{{{- message['content'] -}}}}{_literal(tail + end)}"
        )
    if not {"user", "assistant"} <= roles.keys():
        raise ModelCorrupt("the conversation template does not name the user and the assistant")
    turns = "{%- el".join(branches)
    answer = _literal(roles["assistant"] + text(fields, "role_empty_sep"))
    return (
        f"{system}{{%- for message in messages -%}}{{%- if loop.index0 >= first -%}}{{%- {turns}"
        "{%- else -%}{{- raise_exception('the model has no such role') -}}{%- endif -%}{%- endif -%}{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{answer}{{%- endif -%}}"
    )


def _strings(fields: Mapping[str, Any], key: str) -> dict[str, str]:
    value = fields.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ModelCorrupt(f"{key!r} of the conversation template does not map names to strings")
    return value


def _literal(content: str) -> str:
    """Jinja that writes a text as it is."""
    return f"{{{{- {json.dumps(content, ensure_ascii=False)} -}}}}" if content else ""
