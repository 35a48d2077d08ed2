from orchestrator.hybrid_dispatcher import register_function


@register_function("split_bill", effect="none")
def split_bill(total: float, people: int, tip: float = 0.1) -> float:
    """What each of several people pays, tip included.

    Args:
        tip: The tip as a share of the bill: 0.1 for 10 %.
    """
    return round(total * (1 + tip) / people, 2)
