"""vLLM's way in: called by name in the API process, the engine core and every worker. See pyproject's entry points."""

ARCHITECTURE = "ChromaThinkerForConditionalGeneration"


def register() -> None:
    from vllm import ModelRegistry

    from chroma_models.reasoner import vllm_pace
    from chroma_models.reasoner.vllm_parent import end_with_parent

    vllm_pace.install()
    end_with_parent()

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        # By name, so that nothing of the model is imported before vLLM wants it.
        ModelRegistry.register_model(ARCHITECTURE, f"chroma_models.reasoner.vllm_model:{ARCHITECTURE}")
