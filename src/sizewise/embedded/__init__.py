"""The offline default: dialogues coded in ICD-10-CM and a ladder of tiny language models."""
