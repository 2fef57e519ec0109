"""What a request leaves open to a model of some task, and what it asks in vain."""

from dataclasses import replace
from typing import TypeVar

from sd_pipeline.errors import PipelineError
from sd_pipeline.request import Img2Img, Inpaint, Outpaint, Txt2Img

_STRENGTH = 0.75
_IMAGE_SCALE = 1.5  # the web UI's and diffusers'

Request = TypeVar("Request", bound=Txt2Img)


def settled(request: Request, task: str) -> Request:
    """Return a request with the settings that hang on what the model is for: txt2img, depth ...

    Raises `PipelineError` where a model of this task cannot draw it, or would not heed a setting.
    """
    reason = _refusal(request, task)
    if reason is not None:
        raise PipelineError(reason)
    if task == "pix2pix" and request.guidance.image_scale is None:
        return replace(request, guidance=replace(request.guidance, image_scale=_IMAGE_SCALE))
    if task != "pix2pix" and isinstance(request, Img2Img) and request.strength is None:
        return replace(request, strength=_STRENGTH)
    return request


def _refusal(request: Txt2Img, task: str) -> str | None:
    if task != "pix2pix" and request.guidance.image_scale is not None:
        return (
            f"image guidance is for a model that edits by instructions, and this one is for {task};"
            " leave out --image-guidance"
        )
    if isinstance(request, Img2Img) and request.depth is not None and task != "depth":
        return f"a depth map is for a depth model, and this one is for {task}; leave out --depth"
    if task not in ("pix2pix", "depth"):
        return None
    if not isinstance(request, Img2Img):
        return (
            f"this model edits a picture by its own channels ({task}), and txt2img has none to "
            f"give it; use img2img{' with --depth' * (task == 'depth')}, or a plain model"
        )
    if isinstance(request, Inpaint | Outpaint):
        return (
            f"this model edits whole pictures by its own channels ({task}) and heeds no mask; "
            "use img2img, or a plain or an inpainting model"
        )
    if task == "depth":
        no_map = "this model draws by depth, which it does not guess; give img2img a map as --depth"
        return no_map if request.depth is None else None
    return _refusal_to_edit(request)


def _refusal_to_edit(request: Img2Img) -> str | None:
    """Tell what of a request is not for a model that edits by instructions."""
    if request.strength is not None:
        return (
            f"this model edits by instructions and begins with noise alone, so a strength "
            f"({request.strength}) says nothing to it; leave it out, or use a plain model"
        )
    if request.resize != "pixel":
        return "this model edits by instructions and takes pixels; leave out the latents' resizing"
    for asked, what in (
        (request.guidance.projected, "adaptive projected guidance (--apg)"),
        (request.guidance.pag_scale, "perturbed-attention guidance (--pag)"),
    ):
        if asked:
            return f"this model edits by instructions, guided by the picture; leave out {what}"
    return None
