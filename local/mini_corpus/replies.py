"""A language model's own answers to short questions: what STTC trains it to write after it has heard them."""

from __future__ import annotations

import re
from typing import Any

from tqdm import tqdm

LONGEST = 24  # tokens
SYSTEM = "Answer in one short sentence."


def first_sentence(text: str) -> str:
    """The first sentence without marks of layout; empty where there is none that ends.

    >>> first_sentence("Paris is the capital. It is big.")
    'Paris is the capital.'
    """
    match = re.match(r"[^.!?\n]{2,}[.!?]", " ".join(text.split("\n", 1)[0].replace("*", "").split()))
    return match.group(0).strip() if match else ""


def answer(questions: list[str], llm: str, batch_size: int = 32) -> list[str]:
    """Greedy answers in the model's chat template, one a question; empty where it comes to no end.

    Args:
        llm: folder or hub id of an Instruct model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(llm, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.bfloat16).eval()
    answers = []
    for start in tqdm(range(0, len(questions), batch_size), desc="answers"):
        texts = []
        for question in questions[start : start + batch_size]:
            chat = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": f"{question.capitalize()}?"},
            ]
            texts.append(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            out = model.generate(
                **batch, max_new_tokens=LONGEST, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        new = out[:, batch["input_ids"].size(1) :]
        answers += [first_sentence(tokenizer.decode(row, skip_special_tokens=True)) for row in new]
    return answers
