"""From a neural recording to consistent latent embeddings, and to claims about them."""

from __future__ import annotations

__version__ = "0.1.0"
