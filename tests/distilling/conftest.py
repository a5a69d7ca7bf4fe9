"""Pictures and the command that pays a server for answers about them."""

from distilling_cases import bare, paid, photos
from openai_cases import openai_settings

__all__ = ["bare", "openai_settings", "paid", "photos"]
