"""Every method, run on a toy suite with hyper-parameters that make the slow ones quick."""

import adamerging_lib as am
from adamerging_lib.methods import registry

EVERY = list(am.methods().index)
_ADAMERGING = {"recipe": "mini", "steps": 2, "batch_size": 4}
SHORT: dict[str, dict] = {
    "fisher": {"images": 4},
    "regmean": {"images": 6},
    "regmean_pp": {"images": 6},
    "zipit": {"images": 4},
    "prodistill": {"images": 4, "epochs": 1},
    "task_wise_adamerging": _ADAMERGING,
    "task_wise_adamerging_pp": _ADAMERGING,
    "layer_wise_adamerging": _ADAMERGING,
    "layer_wise_adamerging_pp": _ADAMERGING,
    "doge_am": {**_ADAMERGING, "iterations": 3},
    "supermerge": {**_ADAMERGING, "images": 20},
    **dict.fromkeys(("joint_training", "pcgrad", "wpcgrad", "cagrad", "nash_mtl", "taps"), _ADAMERGING),
    "component_adamerging": _ADAMERGING,
    "samerging": _ADAMERGING,
    "adarank": {"steps": 2, "batch_size": 4},
    "surgery": {"steps": 2, "batch_size": 4},
    "tint": {"epochs": 2, "batch_size": 4},
    "tint_pp": {"epochs": 2, "batch_size": 4},
    "wemoe": {"steps": 2, "batch_size": 4},
}


def run(method: str, suite: am.Suite, **hyper) -> am.Merged:
    """A method's result, computed anew, without bars."""
    quiet = {"progress": False} if registry.find(method).adaptive else {}
    return am.run_method(method, suite, cache=False, **{**SHORT.get(method, {}), **quiet, **hyper})
