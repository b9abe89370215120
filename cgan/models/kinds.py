"""The kinds of generators, a line for each. Needs no torch: params and model cards read it; a kind's class is
loaded when a generator of it is made or read (`cgan.models.generative.class_of`)."""

from dataclasses import dataclass

CAUTION = (
    "This generator is not trained: its file is the training images, and its drawings are put together from "
    "pieces of them. Whoever has the file has the images, so publish it only if anybody may see them."
)


@dataclass(frozen=True)
class GeneratorKind:
    """`title`: on a model card. `model`: its class, a subclass of `GenerativeModel`. `is_trained`: by
    `cgan.training`; else it is made of the images at once. `params`: those of `train` that it alone has."""

    title: str
    model: str
    is_trained: bool = False
    holds_training_images: bool = False
    params: tuple[str, ...] = ()

    @property
    def caution(self) -> str:
        """A warning for whoever passes the file or a drawing on; "" of a generator of learnt weights."""
        return CAUTION if self.holds_training_images else ""


GAN = "A conditional DCGAN"
KINDS = {
    "deconv": GeneratorKind(GAN, "cgan.models.networks:ConvGenerator", is_trained=True),
    "upsample": GeneratorKind(GAN, "cgan.models.networks:ConvGenerator", is_trained=True),
    "demo": GeneratorKind(GAN, "cgan.models.networks:DemoGenerator", is_trained=True),
    "local_score": GeneratorKind(
        "A local score sampler",
        "cgan.models.local_score:LocalScoreSampler",
        holds_training_images=True,
        params=("score_window_scale",),
    ),
}
