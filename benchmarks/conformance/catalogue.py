"""Every adapter and every known disagreement, of all the modules in `adapters`."""

from importlib import import_module

from benchmarks.conformance.answers import Adapter

MODULES = ("exact", "pairs", "unpaired", "policy_gradients", "estimators")


def collected() -> tuple[dict[str, Adapter], dict[str, str]]:
    """Function name to adapter, and key to sentence. One function has one adapter."""
    adapters: dict[str, Adapter] = {}
    disagreements: dict[str, str] = {}
    for name in MODULES:
        path = f"benchmarks.conformance.adapters.{name}"
        try:
            module = import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise
            continue
        for found, new in (
            (adapters, module.ADAPTERS),
            (disagreements, module.KNOWN_DISAGREEMENTS),
        ):
            twice = {key for key in set(found) & set(new) if found[key] != new[key]}
            if twice:
                raise ValueError(f"{name} says again: {sorted(twice)}")
            found.update(new)
    return adapters, disagreements
