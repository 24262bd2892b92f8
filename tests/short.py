"""Hyper-parameters that make each slow method quick enough for a toy suite; used by every test that runs them all."""

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
    "adarank": {"steps": 2, "batch_size": 4},
    "surgery": {"steps": 2, "batch_size": 4},
    "tint": {"epochs": 2, "batch_size": 4},
    "tint_pp": {"epochs": 2, "batch_size": 4},
    "wemoe": {"steps": 2, "batch_size": 4},
}
