"""Frames of the pretraining text: none of them occurs in the task."""

from __future__ import annotations

SPEAKERS = (("Doctor", "Patient"), ("Nurse", "Caller"), ("Clinic", "Visitor"))
OPENERS = (
    "Next please. What is wrong?",
    "Tell me about your complaint.",
    "Welcome to the clinic, how do you feel?",
    "Why did you book this slot?",
    "What worries you?",
)
QUESTIONS = (
    "What does it feel like?",
    "Did you notice anything special?",
    "Is that all there is to it?",
    "Please explain a bit further.",
    "What makes it different?",
)
ASIDES = (
    "I am otherwise healthy.",
    "I take no medicine.",
    "I have two children.",
    "My brother has high blood pressure.",
    "I had the flu in winter.",
    "I am allergic to penicillin.",
    "My father has sugar.",
    "I never smoked.",
    "My {side} arm was in plaster once.",
    "Long ago I had an operation on the {side} leg.",
)
ASIDE_QUESTIONS = (
    "Past illnesses?",
    "Do you take anything?",
    "How is your health apart from that?",
)

DIAGNOSIS_QUESTIONS = (
    "What does this person have?",
    "Which illness is described here?",
    "Put the diagnosis into words.",
    "Name the finding in words.",
    "What is the matter with this patient?",
    "Which condition explains this?",
)
NAMED = ("{description}.", "This is {description}.", "It looks like {description}.")

LAY_FRAMES = (
    "{words} {question}",
    "{question} {words}",
    "{words}\n\n{question}",
    "Patient: {words}\n\n{question}",
    "Caller: {words}\n\n{question}",
    "Note of a call: {words}\n{question}",
)
LAY_QUESTIONS = ("What is that called?", "Which condition is it?", *DIAGNOSIS_QUESTIONS)
LAY_CODE_QUESTIONS = (
    "Which ICD-10-CM code is that?",
    "Which ICD-10-CM code covers this complaint?",
    "Say what it is first, then its ICD-10-CM code.",
    "Give the name and the code.",
    "What is the ICD-10-CM code here?",
    "Find the ICD-10-CM code, words may come first.",
    "How is this complaint coded in ICD-10-CM?",
)
CODED = "{description}, code {code}."

CODE_QUESTIONS = (
    "Which ICD-10-CM code stands for {description}?",
    "What is the code of {description}?",
    "How is {description} coded?",
    "Code for: {description}",
)
MEANING_QUESTIONS = (
    "What does {code} stand for?",
    "Which condition has the ICD-10-CM code {code}?",
    "Read out the entry {code}.",
)
MEANINGS = ("{description}.", "{code} stands for {description}.")
CHAPTER_QUESTIONS = ("Which chapter holds {code}?", "In what chapter is {description} listed?")
CATEGORY_QUESTIONS = ("To which category does {code} belong?", "What is the category of {code}?")
