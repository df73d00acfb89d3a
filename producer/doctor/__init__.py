"""The doctor: one small check for each thing that bites people, each with what to do about it."""

from producer.doctor.examine import CHECKS, examine
from producer.doctor.patient import Finding, Patient

__all__ = ["CHECKS", "Finding", "Patient", "examine"]
