"""Vectors for other programs: llama.cpp and PEFT. Each of them is imported where it is used."""
