"""Experiments, and what they stand on: texts, jobs, rows on disk, runners, reports."""
