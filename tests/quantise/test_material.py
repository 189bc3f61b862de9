from __future__ import annotations

from importlib import resources

from ondevice_sdk.backends.llama_cpp.material import lay_out
from ondevice_sdk.types import Segment

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
TEXT = "A story.\n\nIt ends.\n%\n@system\nBe kind.\n@user\nHi <|end|>\n\nthere\n@assistant\nHello!\n%\n50 % of it\n"


def test_conversations_take_the_models_template() -> None:
    first, chat, last = lay_out(TEXT, TEMPLATE, {})
    assert first == (Segment("A story.\n\nIt ends.\n\n"),)
    assert last == (Segment("50 % of it\n\n"),)
    assert "".join(each.text for each in chat) == (
        "<|system|>Be kind.<|end|><|user|>Hi <|end|>\n\nthere<|end|><|assistant|>Hello!<|end|>"
    )
    assert [each.text for each in chat if each.kind == "data"] == ["Be kind.", "Hi <|end|>\n\nthere", "Hello!"]


def test_without_a_usable_template_they_are_plain_text() -> None:
    for template in (None, "{{ raise_exception('no') }}"):
        _, chat, _ = lay_out(TEXT, template, {})
        assert chat == (Segment("Be kind.\n\nHi <|end|>\n\nthere\n\nHello!\n\n"),)


def test_any_text_is_a_text() -> None:
    for text in ("one", "@assistant\nnobody asked", "100\n% of nothing", "@user"):
        assert list(lay_out(text, TEMPLATE, {})) == [(Segment(f"{text}\n\n"),)]
    assert list(lay_out("", TEMPLATE, {})) == []


def test_the_packaged_text_has_conversations_and_plain_pieces() -> None:
    text = (resources.files("ondevice_sdk.quantise") / "calibration.txt").read_text(encoding="utf-8")
    pieces = list(lay_out(text, TEMPLATE, {}))
    chats = [piece for piece in pieces if len(piece) > 1]
    assert len(chats) >= 10
    assert len(pieces) - len(chats) >= 20
    assert not any(each.text.startswith("@") for piece in pieces for each in piece)
