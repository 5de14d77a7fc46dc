"""A plan in words and figures; every figure says where it comes from."""

from collections.abc import Iterator

from loadtest.plan.planner import Plan, PoolPlan

MODEL = (
    "Model: questions are a Poisson process; answers in progress follow Erlang's loss formula, each replica by itself; "
    "what waits for a device waits as in M/M/1; an interpreter may be 70% busy, a device 95%."
)


def told(plan: Plan, price: float | None = None) -> list[str]:
    """price: of a GPU for an hour, in whatever it is paid with."""
    load, alone_ms, loaded_ms = plan.workload, 1000 * plan.alone_s, 1000 * plan.first_audio_s
    layout = (f"{each.pool.name} = {' + '.join(stage.name for stage in each.pool.stages)}" for each in plan.pools)
    lines = [
        f"promised       {plan.slo}",
        f"callers        {load.sessions} conversations, {load.turns_per_minute:g} turns a minute of "
        f"{load.question_s:g} s, answered for {load.reply_s:g} s: {plan.load:.0f} answers in progress on average",
        f"first audio    {alone_ms:.0f} ms for one stream alone ({plan.alone_source}; hops {plan.hop_source}), "
        f"{loaded_ms:.0f} ms at the streams below",
        f"layout         {plan.layout}: {'; '.join(layout)}",
    ]
    for each in plan.pools:
        lines += _pool(each)
    binding, limit = plan.binding
    lines.append(f"binds          {limit.stage} in {binding.pool.name}: {limit.what} allows {limit.streams} streams")
    lines.append(f"ingress        {plan.ingress_cores:.1f} CPU cores ({plan.ingress_source})")
    lines.append(f"GPUs           {plan.gpus} {plan.gpu.name}{_cost(plan.gpus, price, load.sessions)}")
    worst = max(each.refused_with_a_node_lost for each in plan.pools)
    spare = plan.gpus_with_a_node_to_lose
    lines.append(
        f"a node lost    of {plan.gpus_per_node} GPUs: {worst:.1%} refused; "
        f"{spare} GPUs keep the promise even then{_cost(spare, price, load.sessions)}"
    )
    for crowd, modelled_s in plan.crowds:
        found_ms = 1000 * crowd.first_audio_s["p95"]
        lines.append(
            f"checked        {crowd.streams} streams that came at once, in one process ({crowd.source}): first audio "
            f"p95 {found_ms:.0f} ms; the model says {1000 * modelled_s:.0f} ms where they come evenly"
        )
    return [*lines, MODEL]


def _pool(each: PoolPlan) -> Iterator[str]:
    pool, n = each.pool, each.streams
    yield (
        f"{pool.name:14s} {n} streams a replica, {each.replicas} replicas of one GPU: {each.refused:.3%} refused, "
        f"{pool.busy(n):.0%} busy, first audio waits {1000 * pool.wait_s(n, 0.95):.0f} ms at p95"
    )
    for stage in pool.stages:
        slots = f", {n} slots" if stage.slot_bytes else ""
        yield (
            f"  {stage.name:12s} {stage.busy.ms(n):.2f} ms a frame, {pool.share(stage, n):.0%} of the GPU{slots} "
            f"({stage.busy.source(n)}; new turns {stage.first_ms:.1f} ms, {stage.first_source}, divided as by roofline)"
        )
    yield "  limits       " + ", ".join(f"{limit.what} ({limit.stage}) {limit.streams}" for limit in each.limits)
    yield "  memory, GB   " + ", ".join(f"{name} {held / 1e9:.1f}" for name, held in pool.memory(n).items())


def _cost(gpus: int, price: float | None, sessions: int) -> str:
    if price is None:
        return ""
    return f", {gpus * price:.2f} an hour, {gpus * price / sessions:.4f} for an hour of a conversation"
