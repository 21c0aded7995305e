"""How the models of a chat answer: system text, wording, decoding."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from sizewise.app.chat.speakers import Speaker
from sizewise.app.pages.common import kept
from sizewise.config import GenerationConfig
from sizewise.release.generate import as_in_training

LONGEST = 512


@dataclass(frozen=True)
class Settings:
    """``in_training``: the wording into which the first message is put; None: as it is."""

    generation: GenerationConfig
    system: str
    in_training: str | None


def settings_of(speaker: Speaker) -> Settings:
    """Ask for the settings; they begin as they were in the run of the first model.

    Text, length and top-p are kept for each such model, the others for all.
    """
    base, dataset = speaker.config.generation, speaker.config.dataset
    prompt = dataset.prompt or ""
    wraps = as_in_training(prompt, "x") is not None
    # A system text with columns belongs to a row of the data.
    own = dataset.system if dataset.system and "{" not in dataset.system else ""
    with st.popover("Settings", icon=":material/tune:"):
        system = st.text_area("System text", key=kept(f"chat_system_{speaker.asked}", own))
        wrap = wraps and st.toggle(
            "Write the first message as in training", key=kept("chat_wrap", True)
        )
        most = min(LONGEST, max(8, base.max_new_tokens))
        key = kept(f"chat_tokens_{speaker.asked}", most)
        tokens = st.slider("Longest answer (tokens)", 8, LONGEST, key=key)
        key = kept("chat_temperature", 0.0)
        warm = st.slider("Temperature (0: always the likeliest word)", 0.0, 1.5, step=0.1, key=key)
        key = kept(f"chat_top_p_{speaker.asked}", base.top_p)
        top = st.slider(
            "Top-p (words of so much of the probability)", 0.05, 1.0, step=0.05, key=key
        )
        said, key = "The same seed gives the same words.", kept("chat_seed", 0)
        seed = st.number_input("Seed", 0, 2**31 - 1, help=said, key=key)
    generation = GenerationConfig(
        max_new_tokens=tokens,
        do_sample=warm > 0,
        temperature=warm or 1.0,
        top_p=top,
        top_k=base.top_k,
        repetition_penalty=base.repetition_penalty,
        seed=int(seed),
    )
    return Settings(generation, system or "", prompt if wrap else None)
