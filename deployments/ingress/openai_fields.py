"""Fields of OpenAI's chat completions that this service reads past, and those it must refuse.

Both are listed here and nowhere else. A field in neither, and not in openai_chat.ChatRequest, is refused by name.
"""

from typing import Any

# Accepted with any value; they change nothing, here or in the speech that is made.
WITHOUT_EFFECT = frozenset(
    {
        "top_p",  # the reference computes it and does not use it
        "frequency_penalty",  # as top_p
        "presence_penalty",  # as top_p
        "metadata",
        "moderation",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "verbosity",
    }
)

# Fields that would change the answer, with the values that ask for nothing (null always does).
ONLY_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "web_search_options": (),
}
