"""Conversations of chat models, as templates around a user's message.

A template ends in a space where the assistant's answer is a word of its own; see `Prompt` for what becomes of that space.
"""

from __future__ import annotations

from rrg.errors import UserError, nearest

_SYSTEM = (
    "A chat between a curious {asker} and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the {asker}'s questions. USER: {message} ASSISTANT: "
)
# libra_v0 and vicuna_v1 differ in two words (spec gla §3); plain is LLaVA's first stage: the picture and no instruction.
CONVERSATIONS = {
    "libra_v0": _SYSTEM.replace("{asker}", "human"),
    "vicuna_v1": _SYSTEM.replace("{asker}", "user"),
    "plain": "{image}",
}


def conversation(name: str, message: str, where: str = "language.template") -> str:
    """The prompt template of `message` in the conversation `name`; an empty name is no conversation.

    Raises:
        UserError: the conversation is not known.
    """
    if not name:
        return message
    if name not in CONVERSATIONS:
        raise UserError(f"{where}: {name!r} is not known; {nearest(name, CONVERSATIONS)}")
    return CONVERSATIONS[name].replace("{message}", message)
