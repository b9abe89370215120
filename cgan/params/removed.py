"""Keys of params.yaml that version 1.0 removed, as key, section or `key: value`; what to do instead."""

_CONSTANT = "it is a constant; leave the key out"
_OF_DEMO = "it is a part of the generator demo; choose that one, or leave the key out"
_DEMO_KEYS = "discriminator objective optimizer adadelta_rho adadelta_eps gradient_clip"
_CONSTANT_KEYS = (
    "adam_beta2 final_lr_fraction r1_every log_every save_every previews score_cap score_sources"
)
REMOVED = {
    **{f"train.{key}": _OF_DEMO for key in _DEMO_KEYS.split()},
    **{f"train.{key}": _CONSTANT for key in _CONSTANT_KEYS.split()},
    **{f"train_judge.{key}": _CONSTANT for key in ("batch_size", "peak_lr", "width")},
    "train.cpu_parts": "it follows from the device; leave the key out",
    "train.generator: embed": "choose deconv",
    "train.updates: in_turn": "choose the generator demo, or auto",
    "train.r1_gamma: auto": "set 0.3, which it was",
    "train.batch_size: auto": "set a number; all images are a batch where there are fewer",
    "evaluate.draws": "intervals cover the chance of a draw; leave the key out",
    "render": "its values are constants; leave the section out",
    "data.max_megabytes": _CONSTANT,
    "data.fit: stretch": "choose crop or pad",
    "validate.max_imbalance": "counts are shown; leave the key out",
    "gate.max_membership_auc": "ask `cgan sharing` before you publish; leave the key out",
    "gate.min_diversity_of_champion": "min_worst_class_diversity stays; leave the key out",
    "gate.max_agreement_drop": "max_outliers holds for new images, too; leave the key out",
    "gate.min_conditional_accuracy": "set min_relative_accuracy, a part of what real images get",
    "gate.min_worst_class_accuracy": "set min_relative_accuracy, which holds for each class, too",
    "gate.min_coverage_of_floor": "no check reads it; leave the key out",
}
