"""Numbers that several rooms must agree on."""

IGNORE_ID = -1  # WeNet's padding of target ids (Hugging Face's is -100)
