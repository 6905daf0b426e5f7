"""Every kind of subject, and how often each occurs."""

from __future__ import annotations

from ftkit.rag.world.companies import COMPANY, PRODUCT
from ftkit.rag.world.places import MUSEUM, NOISE, TOWN
from ftkit.rag.world.wording import Kind

KINDS: dict[str, Kind] = {"town": TOWN, "company": COMPANY, "product": PRODUCT, "museum": MUSEUM, "noise": NOISE}
# Towns and companies are linked to, so they come early and companies often.
CYCLE = ("town", "company", "product", "museum", "company", "product")
# Questions of one relation, the same for all.
MAX_PARAPHRASES = 4
