"""How the models of a chat answer: system text, wording, decoding."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from sizewise.app.chat.speakers import Speaker
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
    """Ask for the settings; they begin as they were in the run of the first model."""
    base, dataset = speaker.config.generation, speaker.config.dataset
    prompt = dataset.prompt or ""
    wraps = as_in_training(prompt, "x") is not None
    # A system text with columns belongs to a row of the data.
    own = dataset.system if dataset.system and "{" not in dataset.system else ""
    with st.popover("Settings", icon=":material/tune:"):
        system = st.text_area("System text", own, key=f"system_{speaker.asked}")
        wrap = wraps and st.toggle("Write the first message as in training", True)
        most = min(LONGEST, max(8, base.max_new_tokens))
        tokens = st.slider("Longest answer (tokens)", 8, LONGEST, most)
        warm = st.slider("Temperature (0: always the likeliest word)", 0.0, 1.5, 0.0, 0.1)
        top = st.slider("Top-p (words of so much of the probability)", 0.05, 1.0, base.top_p, 0.05)
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, help="The same seed gives the same words.")
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
