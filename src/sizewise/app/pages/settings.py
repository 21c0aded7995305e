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
        key = f"chat_system_{speaker.asked}"
        system = st.text_area("System text", kept(key, own), key=key)
        label, key = "Write the first message as in training", "chat_in_training"
        wrap = wraps and st.toggle(label, kept(key, True), key=key)
        most = min(LONGEST, max(8, base.max_new_tokens))
        key = f"chat_tokens_{speaker.asked}"
        tokens = st.slider("Longest answer (tokens)", 8, LONGEST, kept(key, most), key=key)
        label, key = "Temperature (0: always the likeliest word)", "chat_temperature"
        warm = st.slider(label, 0.0, 1.5, kept(key, 0.0), 0.1, key=key)
        label, key = "Top-p (words of so much of the probability)", f"chat_top_p_{speaker.asked}"
        top = st.slider(label, 0.05, 1.0, kept(key, base.top_p), 0.05, key=key)
        said, key = "The same seed gives the same words.", "chat_seed"
        seed = st.number_input("Seed", 0, 2**31 - 1, kept(key, 0), help=said, key=key)
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
